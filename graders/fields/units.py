"""Converts units of measurement for `number` fields, by a small table: no library parses any text here.

Each line is a quantity; each unit has its size in the first one, as a number or a quotient, and the names it
goes by. Sizes are exact by definition (but for degrees of an angle), so that a conversion is exact too.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

_TABLE = """
share: 1=1 0.01=% pct percent 0.001=‰ permille 1e-6=ppm 1e-4=bp bps
length: 1=m meter metre meters metres 1e-12=pm 1e-10=Å 1e-9=nm nanometer nanometers nanometre nanometres 1e-6=µm um micrometer micrometers 0.001=mm millimeter millimeters millimetre millimetres 0.01=cm centimeter centimeters centimetre centimetres 0.1=dm 1000=km kilometer kilometers kilometre kilometres 0.0254=in inch inches " ″ 0.3048=ft foot feet ' ′ 0.9144=yd yard yards 1609.344=mi mile miles 1852=nmi
mass: 1=kg kilogram kilograms kilo kilos 1e-12=ng nanogram nanograms 1e-9=µg ug mcg microgram micrograms 1e-6=mg milligram milligrams 0.001=g gram grams 1000=t tonne tonnes metricton metrictons 0.45359237=lb lbs pound pounds 0.028349523125=oz ounce ounces 6.35029318=st stone 907.18474=ton tons
time: 1=s sec secs second seconds 1e-12=ps 1e-9=ns nanosecond nanoseconds 1e-6=µs us microsecond microseconds 0.001=ms millisecond milliseconds 60=min mins minute minutes 3600=h hr hrs hour hours 86400=d day days 604800=wk week weeks 31557600=yr year years
area: 1=m2 m² sqm squaremeter squaremeters squaremetre squaremetres 1e-2=dm2 dm² 0.00064516=in2 in² sqin 0.83612736=yd2 yd² 1e-6=mm2 mm² 1e-4=cm2 cm² 10000=ha hectare hectares 1e6=km2 km² sqkm 0.09290304=ft2 ft² sqft squarefoot squarefeet 4046.8564224=acre acres 2589988.110336=mi2 mi² sqmi
volume: 1=l L ℓ liter liters litre litres dm3 dm³ 1e-6=µl µL ul uL microliter microliters microlitre microlitres mm3 mm³ 0.001=ml mL milliliter milliliters millilitre millilitres cm3 cm³ cc 0.01=cl cL centiliter centiliters centilitre centilitres 0.1=dl dL deciliter deciliters decilitre decilitres 100=hl hL 1000=kl kL m3 m³ cubicmeter cubicmeters cubicmetre cubicmetres 1e6=ML 0.016387064=in3 in³ cuin 28.316846592=ft3 ft³ cuft 0.0295735295625=floz 3.785411784=gal gallon gallons 0.946352946=qt quart quarts 0.473176473=pt pint pints 0.2365882365=cup cups 0.01478676478125=tbsp 0.00492892159375=tsp
speed: 1=m/s mps 1/3.6=km/h kph kmh km/hr 0.44704=mph mi/h 1852/3600=kn kt knot knots 0.3048=ft/s 1000=km/s 0.01=cm/s
data: 1=B byte bytes 0.125=bit bits 1e3=kB KB 1e6=MB 1e9=GB 1e12=TB 1e15=PB 1024=KiB 1048576=MiB 1073741824=GiB 1099511627776=TiB
frequency: 1=Hz hertz 1e3=kHz 1e6=MHz 1e9=GHz 1e12=THz 0.001=mHz 1/60=rpm
energy: 1=J joule joules 1e3=kJ 1e6=MJ 3600=Wh 3.6e6=kWh 3.6e9=MWh 3.6e12=GWh 4.184=cal 4184=kcal Cal 1.602176634e-19=eV 1.602176634e-16=keV 1.602176634e-13=MeV 1.602176634e-10=GeV 1055.05585262=BTU Btu
torque: 1=Nm N·m
force: 1=N newton newtons 0.001=mN 1e3=kN 1e6=MN 9.80665=kgf 4.4482216152605=lbf
power: 1=W watt watts 0.001=mW 1e3=kW 1e6=MW 1e9=GW 745.69987158227022=hp
pressure: 1=Pa pascal pascals 100=hPa mbar millibar 1e3=kPa 1e6=MPa 1e5=bar 101325=atm 4.4482216152605/0.00064516=psi 133.322387415=mmHg 101325/760=torr Torr
voltage: 1=V volt volts 1e-6=µV uV 0.001=mV 1e3=kV
current: 1=A amp amps ampere amperes 1e-12=pA 1e-9=nA 1e-6=µA uA 0.001=mA 1e3=kA
resistance: 1=Ω ohm ohms 0.001=mΩ 1e3=kΩ kohm 1e6=MΩ
charge: 1=coulomb coulombs 0.001=mC 1e-6=µC uC 1e-9=nC 3600=Ah 3.6=mAh
amount: 1=mol moles 0.001=mmol 1e-6=µmol umol
angle: 1=rad radian radians 0.017453292519943295769=deg degree degrees °
temperature: 1=K kelvin
"""  # noqa: E501  # a table


class Unit(NamedTuple):
    """Describes a unit: a number in it is `size * number + zero` in the first unit of its quantity."""

    quantity: str
    size: Fraction
    zero: Fraction = Fraction(0)


_CELSIUS = Unit("temperature", Fraction(1), Fraction("273.15"))
_FAHRENHEIT = Unit("temperature", Fraction(5, 9), Fraction("459.67") * Fraction(5, 9))
_TEMPERATURES = {
    **dict.fromkeys(("°C", "C", "celsius", "°celsius", "degC", "degreescelsius"), _CELSIUS),
    **dict.fromkeys(("°F", "F", "fahrenheit", "°fahrenheit", "degF", "degreesfahrenheit"), _FAHRENHEIT),
}


def _read_table() -> dict[str, Unit]:
    units: dict[str, Unit] = {}
    for line in _TABLE.strip().splitlines():
        quantity, _, rest = line.partition(": ")
        size = Fraction(1)
        for word in rest.split():
            number, sign, name = word.partition("=")
            if sign:
                above, _, below = number.partition("/")
                size, word = Fraction(above) / Fraction(below or 1), name
            units[word] = Unit(quantity, size)
    return {**units, **_TEMPERATURES}


UNITS = _read_table()


def _by_lower_case() -> dict[str, Unit]:
    """Returns the units whose symbol or name means nothing else in other letters, by it in lower case."""
    found: dict[str, set[Unit]] = {}
    for name, unit in UNITS.items():
        found.setdefault(name.lower(), set()).add(unit)
    return {name: units.pop() for name, units in found.items() if len(units) == 1}


_IN_LOWER_CASE = _by_lower_case()
_SPELLINGS = str.maketrans(
    {
        "\u03bc": "\u00b5",  # the Greek letter, which Unicode recommends for micro
        "\u2126": "\u03a9",
        "\u212a": "K",
        "\u212b": "\u00c5",
        "\u00ba": "\u00b0",
        "\u2103": "\u00b0C",
        "\u2109": "\u00b0F",
        **dict.fromkeys("^ \u00a0\u202f", None),
    }
)
"""What is read as another character in a unit: `m^2` is `m2`, `sq ft` is `sqft`."""
_SURE_IN_ANY_CASE = 4
"""Letters from which a name is a word, whose case does not matter: `Litres`, `KELVIN`."""


def find_unit(name: str) -> Unit | None:
    """Returns a unit by its symbol, as it is written, or by its name in any case.

    Either micro sign will do. `m` and `M` are not the same, nor are bits and bytes; another case is read only
    where it means nothing else (`Kg`, `KM`). None for a name that is not known.
    """
    if (unit := UNITS.get(name)) is not None:
        return unit
    name = name.translate(_SPELLINGS)
    if (unit := UNITS.get(name)) is not None:
        return unit
    other = _IN_LOWER_CASE.get(name.lower())
    if other is None or len(name) >= _SURE_IN_ANY_CASE:
        return other
    is_sure = len(name) > 1 and name[0] not in "mM" and other.quantity != "data"
    return other if is_sure else None


def converted(number: Fraction, unit: Unit, wanted: Unit) -> Fraction | None:
    """Returns a number in another unit, exactly; None if the two measure different things."""
    if unit == wanted:
        return number
    if unit.quantity != wanted.quantity:
        return None
    return (unit.size * number + unit.zero - wanted.zero) / wanted.size
