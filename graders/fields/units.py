"""Converts units of measurement for `number` fields, by a small table: no library parses any text here.

Each line is a quantity; each unit has its size in the first one, and the names it goes by.
"""

from __future__ import annotations

from typing import NamedTuple

_TABLE = """
share: 1=1 0.01=% pct percent 0.001=‰ permille 1e-6=ppm 1e-4=bp bps
length: 1=m meter metre meters metres 1e-9=nm nanometer nanometers nanometre nanometres 1e-6=µm um micrometer micrometers 0.001=mm millimeter millimeters millimetre millimetres 0.01=cm centimeter centimeters centimetre centimetres 0.1=dm 1000=km kilometer kilometers kilometre kilometres 0.0254=in inch inches " 0.3048=ft foot feet ' 0.9144=yd yard yards 1609.344=mi mile miles 1852=nmi
mass: 1=kg kilogram kilograms kilo kilos 1e-9=µg ug mcg microgram micrograms 1e-6=mg milligram milligrams 0.001=g gram grams 1000=t tonne tonnes 0.45359237=lb lbs pound pounds 0.028349523125=oz ounce ounces 6.35029318=st stone 907.18474=ton tons
time: 1=s sec secs second seconds 1e-9=ns 1e-6=µs us 0.001=ms millisecond milliseconds 60=min mins minute minutes 3600=h hr hrs hour hours 86400=d day days 604800=wk week weeks 31557600=yr year years
area: 1=m2 m² sqm 1e-6=mm2 mm² 1e-4=cm2 cm² 10000=ha hectare hectares 1e6=km2 km² 0.09290304=ft2 ft² sqft 4046.8564224=acre acres 2589988.110336=mi2 mi²
volume: 1=l liter liters litre litres 0.001=ml milliliter milliliters millilitre millilitres cm3 cm³ cc 0.01=cl 0.1=dl 1000=m3 m³ 3.785411784=gal gallon gallons 0.946352946=qt quart quarts 0.473176473=pt pint pints 0.2365882365=cup cups 0.01478676478125=tbsp 0.00492892159375=tsp
speed: 1=m/s mps 0.2777777777777778=km/h kph kmh 0.44704=mph 0.5144444444444445=kn kt knot knots 0.3048=ft/s
data: 1=B byte bytes 0.125=bit bits 1e3=kB KB 1e6=MB 1e9=GB 1e12=TB 1e15=PB 1024=KiB 1048576=MiB 1073741824=GiB 1099511627776=TiB
frequency: 1=Hz hertz 1e3=kHz 1e6=MHz 1e9=GHz 0.016666666666666666=rpm
energy: 1=J joule joules 1e3=kJ 1e6=MJ 3600=Wh 3.6e6=kWh 3.6e9=MWh 4.184=cal 4184=kcal
power: 1=W watt watts 0.001=mW 1e3=kW 1e6=MW 1e9=GW 745.6998715822702=hp
pressure: 1=Pa pascal pascals 100=hPa mbar 1e3=kPa 1e6=MPa 1e5=bar 101325=atm 6894.757293168361=psi 133.322387415=mmHg
voltage: 1=V volt volts 0.001=mV 1e3=kV
current: 1=A amp amps ampere amperes 0.001=mA
angle: 1=rad radian radians 0.017453292519943295=deg degree degrees °
temperature: 1=K kelvin 1=°C C celsius 1=°F F fahrenheit
"""  # noqa: E501  # a table


class Unit(NamedTuple):
    """Describes a unit: a number in it is `size * number + zero` in the first unit of its quantity."""

    quantity: str
    size: float
    zero: float = 0.0


_TEMPERATURES = {
    "°C": Unit("temperature", 1.0, 273.15),
    "C": Unit("temperature", 1.0, 273.15),
    "celsius": Unit("temperature", 1.0, 273.15),
    "°F": Unit("temperature", 5 / 9, 459.67 * 5 / 9),
    "F": Unit("temperature", 5 / 9, 459.67 * 5 / 9),
    "fahrenheit": Unit("temperature", 5 / 9, 459.67 * 5 / 9),
}


def _read_table() -> dict[str, Unit]:
    units: dict[str, Unit] = {}
    for line in _TABLE.strip().splitlines():
        quantity, _, rest = line.partition(": ")
        size = 1.0
        for word in rest.split():
            number, sign, name = word.partition("=")
            if sign:
                size, word = float(number), name
            units[word] = Unit(quantity, size)
    return {**units, **_TEMPERATURES}


UNITS = _read_table()
_IN_LOWER_CASE = {name.lower(): unit for name, unit in UNITS.items() if len(name) > 3}


def find_unit(name: str) -> Unit | None:
    """Returns a unit by its symbol, as it is written, or by its name in any case.

    `m` and `M` are not the same. None for a name that is not known.
    """
    return UNITS.get(name) or _IN_LOWER_CASE.get(name.lower())


def converted(number: float, unit: Unit, wanted: Unit) -> float | None:
    """Returns a number in another unit; None if the two measure different things."""
    if unit == wanted:
        return number
    if unit.quantity != wanted.quantity:
        return None
    return (unit.size * number + unit.zero - wanted.zero) / wanted.size
