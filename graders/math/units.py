"""Reads units of measurement after a number, as what they measure and how large they are.

Words that are no unit (`42 apples`) say nothing about the value, so they are not read.
"""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from typing import NamedTuple

_TABLE = """
length 1 m meter meters metre metres
length 1/1000 mm millimeter millimeters millimetre millimetres
length 1/100 cm centimeter centimeters centimetre centimetres
length 1/10 dm
length 1000 km kilometer kilometers kilometre kilometres
length 1/1000000 µm um micrometer micrometers micron microns
length 1/1000000000 nm nanometer nanometers
length 1/10000000000 Å angstrom angstroms
length 1/1000000000000 pm picometer picometers
length 1852 nmi
length 9460730472580800 ly
length 127/5000 in inch inches
length 381/1250 ft foot feet
length 1143/1250 yd yard yards
length 201168/125 mi mile miles
mass 1 g gram grams
mass 1/1000 mg milligram milligrams
mass 1/1000000 µg ug mcg
mass 1000 kg kgs kilogram kilograms kilo kilos
mass 1000000 t tonne tonnes
mass 45359237/100000 lb lbs pound pounds
mass 45359237/1600000 oz ounce ounces
mass 1/1000000000 ng
time 1 s sec secs second seconds
time 1/1000 ms millisecond milliseconds
time 1/1000000 µs us
time 1/1000000000 ns
time 60 min mins minute minutes
time 3600 h hr hrs hour hours
time 86400 d day days
time 604800 wk week weeks
month 1 month months
month 12 yr yrs year years
volume 1 L l liter liters litre litres
volume 1/1000 mL ml milliliter milliliters millilitre millilitres cc
volume 1/100 cL cl
volume 1/10 dL dl
volume 1/1000000 µL uL
volume 473176473/125000000 gal gallon gallons
volume 473176473/500000000 qt quart quarts
volume 473176473/1000000000 pint pints
volume 473176473/2000000000 cup cups
area 10000 ha hectare hectares
area 316160658/78125 acre acres
angle 1 rad radian radians
degree 1 deg degree degrees °
temperature 1 K kelvin kelvins
celsius 1 °C celsius
fahrenheit 1 °F fahrenheit
energy 1 J joule joules
energy 1000 kJ
energy 1000000 MJ
energy 3600000 kWh
energy 523/125 cal calorie calories
energy 4184 kcal kilocalorie kilocalories
energy 1.602176634e-19 eV
energy 1.602176634e-16 keV
energy 1.602176634e-13 MeV
energy 1.602176634e-10 GeV
power 1 W watt watts
power 1000 kW
power 1000000 MW
power 1/1000 mW
force 1 N newton newtons
force 1000 kN
pressure 1 Pa pascal pascals
pressure 1000 kPa
pressure 1000000 MPa
pressure 100 hPa mbar
pressure 100000 bar
pressure 101325 atm
pressure 101325/760 torr Torr
voltage 1 V volt volts
voltage 1/1000 mV
voltage 1000 kV
current 1 A amp amps ampere amperes
current 1/1000 mA
current 1/1000000 µA uA
resistance 1 Ω ohm ohms
resistance 1000 kΩ
resistance 1000000 MΩ
charge 1 C coulomb coulombs
charge 1/1000 mC
charge 1/1000000 µC uC
charge 1/1000000000 nC
capacitance 1 F farad farads
capacitance 1/1000000 µF uF
capacitance 1/1000000000 nF
capacitance 1/1000000000000 pF
magnetism 1 T tesla teslas
magnetism 1/1000 mT
frequency 1 Hz hertz
frequency 1000 kHz
frequency 1000000 MHz
frequency 1000000000 GHz
data 1 bit bits
data 8 B byte bytes
data 8000 kB KB
data 8000000 MB
data 8000000000 GB
data 8000000000000 TB
amount 1 mol mole moles
amount 1/1000 mmol
amount 1/1000000 µmol umol
amount 1000 kmol
dollar 1 $ USD US$ dollar dollars
dollar 1/100 ¢ cent cents penny pennies
euro 1 € EUR euro euros
sterling 1 £ GBP
yen 1 ¥ JPY yen
rupee 1 ₹ INR Rs rs rupee rupees
won 1 ₩ KRW
"""
_COMPOUND = {"mph": "mi/h", "kph": "km/h", "kmh": "km/h", "kmph": "km/h", "mps": "m/s", "sqm": "m^2"}
_DERIVED = {
    "area": (Fraction(1), {"length": 2}),
    "volume": (Fraction(1, 1000), {"length": 3}),
    "force": (Fraction(1000), {"mass": 1, "length": 1, "time": -2}),
    "energy": (Fraction(1000), {"mass": 1, "length": 2, "time": -2}),
    "power": (Fraction(1000), {"mass": 1, "length": 2, "time": -3}),
    "pressure": (Fraction(1000), {"mass": 1, "length": -1, "time": -2}),
}
"""A quantity of the table by the first units of others: a litre is a thousandth of a cubic metre."""

MAX_UNIT = 60
"""Characters of a unit; longer text after a number is prose."""

_COMMANDS = re.compile(r"\\(?:text|mathrm|operatorname|mbox|mathit|textbf|textit|rm)\w*\b|[{}~]|\\[,;:! ]")
_SIGNS = {
    r"\circ": "°", r"\degree": "°", r"\mu": "µ", "μ": "µ", r"\Omega": "Ω", r"\cdot": "·", r"\%": "%",
    r"\euro": "€", r"\pounds": "£", r"\$": "$", r"\frac": " ", "^°": "°", "²": "^2", "³": "^3", "⋅": "·",
    "\u2126": "Ω", "\u212b": "Å", "**": "^", "⁻¹": "^-1", "⁻²": "^-2",
}  # fmt: skip
_ATOM = re.compile(
    r"\s*(?P<join>per\b|/|\*|·|×)?\s*(?P<power>square\b|squared\b|sq\.?|cubic\b|cubed\b|cu\b\.?)?\s*"
    r"(?P<name>°[CF]|US\$|[a-zA-ZµΩÅ]+|[°$€£¥₹₩¢Ω])\.?(?:\s*(?P<after>squared|cubed)|\s*\^\s*(?P<exponent>-?[0-9]))?"
)
_LETTERS = re.compile(r"[a-zA-Z]+")
_POWERS = {"square": 2, "squared": 2, "sq": 2, "cubic": 3, "cubed": 3, "cu": 3}


class Unit(NamedTuple):
    """Describes a unit: powers of what it measures, and its size in the first unit of each."""

    dimensions: frozenset[tuple[str, int]]
    size: Fraction

    def ratio_to(self, other: Unit) -> Fraction | None:
        """Returns how many of the other unit make one of this; None if they measure different things.

        Degrees alone may be of an angle or of either scale of temperature, C and F of a scale too.
        """
        if self.dimensions == other.dimensions:
            return self.size / other.size
        both = {quantity for quantity, _ in self.dimensions | other.dimensions}
        return Fraction(1) if len(self.dimensions) == len(other.dimensions) == 1 and both in _ALIKE else None


_ALIKE = [
    {"degree", "celsius"},
    {"degree", "fahrenheit"},
    {"charge", "celsius"},
    {"capacitance", "fahrenheit"},
]
"""Quantities that a sign alone does not tell apart: `20 C` may be of temperature."""


def _read_table() -> dict[str, tuple[str, Fraction]]:
    units = {}
    for line in _TABLE.strip().splitlines():
        quantity, size, *names = line.split()
        units.update(dict.fromkeys(names, (quantity, Fraction(size))))
    return units


_UNITS = _read_table()


def read_unit(text: str) -> Unit | None:
    """Returns the unit that a text names (`km`, `m/s^2`, `square feet`); None if none is known by it."""
    if len(text) > MAX_UNIT:
        return None
    plain = plain_unit(text)
    dimensions: Counter[str] = Counter()
    size, at = Fraction(1), 0
    while at < len(plain):
        atom = _ATOM.match(plain, at)
        found = atom and _find(atom["name"])
        if atom is None or found is None or (atom["join"] and not at):
            return None
        power = _power(atom) * (-1 if atom["join"] in ("/", "per") else 1)
        for quantity, times in found.dimensions:
            dimensions[quantity] += times * power
        size *= found.size**power
        at = atom.end()
    named = frozenset((quantity, power) for quantity, power in dimensions.items() if power)
    return Unit(named, size) if at else None


def may_begin_unit(word: str) -> bool:
    """Tells whether a unit may begin with a word; most words after a number are none, and cost no more."""
    first = _LETTERS.match(word)
    return first is None or _find(first[0]) is not None or first[0].lower() in _POWERS


def plain_unit(text: str) -> str:
    """Returns a unit without LaTeX's commands for letters and space."""
    for written, plain in _SIGNS.items():
        text = text.replace(written, plain)
    return " ".join(
        _COMMANDS.sub(" ", text).replace("^ °", "°").replace(" ^", "^").replace("° ", "°").split()
    ).strip(" .")


def _find(name: str) -> Unit | None:
    if (compound := _COMPOUND.get(name.lower())) is not None:
        return read_unit(compound)
    found = _UNITS.get(name) or (_UNITS.get(name.lower()) if len(name) > 3 else None)
    if found is None:
        return None
    quantity, size = found
    factor, dimensions = _DERIVED.get(quantity, (Fraction(1), {quantity: 1}))
    return Unit(frozenset(dimensions.items()), size * factor)


def _power(atom: re.Match[str]) -> int:
    if atom["exponent"]:
        return int(atom["exponent"])
    word = (atom["power"] or atom["after"] or "").rstrip(".")
    return _POWERS.get(word, 1)
