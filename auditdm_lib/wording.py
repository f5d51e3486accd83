"""Words that mean the same: spellings, synonyms, units and numbers; plurals, and numbers in words."""

import re

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
                "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty")
TENS = {word: 10 * i for i, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
COUNTED = "|".join((*NUMBER_WORDS, *TENS))  # for regular expressions
SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
UNITS_UP_TO_19 = {word: i for i, word in enumerate(NUMBER_WORDS[:20])}
ORDINALS = {word: i for i, word in enumerate((
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth").split(), 1)} | {f"{word[:-1]}ieth": n for word, n in TENS.items()}


def _pairs(text: str) -> dict[str, str]:
    """"a|b=c" -> {a: c, b: c}, entries separated by commas."""
    entries = [entry.split("=") for entry in " ".join(text.split()).split(",") if entry.strip()]
    return {variant.strip(): word.strip() for variants, word in entries for variant in variants.split("|")}


# British, older and informal spellings, each a whole word
SPELLINGS = _pairs("""
grey=gray, colour=color, coloured=colored, colourful=colorful, favourite=favorite, neighbour=neighbor, harbour=harbor,
flavour=flavor, armour=armor, honour=honor, humour=humor, labour=labor, odour=odor, parlour=parlor, rumour=rumor,
vapour=vapor, savoury=savory, centre=center, theatre=theater, metre=meter, litre=liter, fibre=fiber, sombre=somber,
calibre=caliber, kilometre=kilometer, centimetre=centimeter, millimetre=millimeter, lustre=luster, spectre=specter,
doughnut=donut, aeroplane|airplane=plane, tyre=tire, yoghurt|yoghourt=yogurt, okay|okey=ok, kerb=curb, mould=mold,
plough=plow, pyjamas|pajamas=pajama, jewellery=jewelry, aluminium=aluminum, moustache=mustache, catalogue=catalog,
dialogue=dialog, programme=program, licence=license, defence=defense, offence=offense, grey-haired=gray-haired,
traveller=traveler, travelling=traveling, sceptical=skeptical, storey=story, whisky=whiskey, chilli=chili,
ketchup|catsup=ketchup, omelette=omelet, organise=organize, organised=organized, realise=realize, analyse=analyze,
barbeque|bbq=barbecue, hairdrier=hairdryer, draught=draft, manoeuvre=maneuver, cosy=cozy, sulphur=sulfur, axe=ax,
marvellous=marvelous, thru=through, tonite=tonight, lite=light, disc=disk, wooly=woolly, racquet=racket, nighttime=night,
daytime=day, underneath=under, blonde=blond, multicoloured=multicolored, doctor=dr, mum|mom|mommy=mother, dad|daddy=father,
bike=bicycle, motorbike=motorcycle, couch=sofa, fridge=refrigerator, tv|telly=television, phone=telephone, photo=photograph,
automobile=car, burger=hamburger, taxicab|taxi=cab, lorry=truck, film=movie, autumn=fall, cellphone=mobilephone,
nobody|noone=nobody, somebody=someone, everybody=everyone, maths=math, eyeglasses=glasses, advert|advertisement=ad,
ave=avenue, ny=newyork, nyc=newyorkcity, usa|unitedstates|unitedstatesofamerica=usa, unitedkingdom=uk, eu|europeanunion=eu,
uae|unitedarabemirates=uae, specs|spectacles=glasses, courgette=zucchini, aubergine=eggplant, nappy=diaper, pavement=sidewalk,
postbox=mailbox, rucksack=backpack, trainers=sneakers, sneaker=sneakers, cockerel=rooster
""")
# phrases, replaced before the words
PHRASES = _pairs("""
and a half=point five, navy blue=navy, no one|no-one=nobody, united states of america|united states|u.s.a.|u.s.a|u.s.|the
us=usa, united kingdom|u.k.|u.k=uk, new york city=nyc, mobile phone|cell phone|cell-phone=mobilephone, upper left=top left,
upper right=top right, lower left=bottom left, lower right=bottom right, upper-left=top left, upper-right=top right,
lower-left=bottom left, lower-right=bottom right, garbage can|rubbish bin|trash bin|garbage bin|trash can=trashcan, petrol
station|gas station=gasstation, motor bike=motorcycle, both of them=both, can not=cannot, air plane=plane, per cent=percent,
tee shirt=tshirt, o'clock|o clock=oclock
""")
ENDS_IN_IE = frozenset("cookie movie brownie hoodie selfie zombie pie tie genie smoothie calorie rookie prairie".split())
IRREGULAR = _pairs("""
children=child, men=man, women=woman, people=person, feet=foot, teeth=tooth, mice=mouse, geese=goose, knives=knife,
wolves=wolf, shelves=shelf, loaves=loaf, halves=half, thieves=thief, calves=calf, scarves=scarf, wives=wife, potatoes=potato,
tomatoes=tomato, heroes=hero, buses=bus, gases=gas, oxen=ox, mangoes=mango, volcanoes=volcano, quizzes=quiz, lenses=lens,
hooves=hoof
""")
# words whose plural is another word
PLURAL_ONLY = frozenset(
    "glasses shorts news goods woods arms blues greens customs works looks spirits does pants manners minutes seconds species "
    "tights briefs boxers slacks overalls marbles thirds fourths fifths tens series christmas always sometimes".split())
UNITS = _pairs("""
kg|kgs|kilo|kilos|kilogram|kilograms|kilogramme|kilogrammes=kg, g|gram|grams|gramme|grammes=g, mg|milligram|milligrams=mg,
km|kms|kilometer|kilometers|kilometre|kilometres=km, m|meter|meters|metre|metres=m,
cm|centimeter|centimeters|centimetre|centimetres=cm, mm|millimeter|millimeters|millimetre|millimetres=mm, ft|foot|feet=ft,
inch|inches|in=inch, mile|miles|mi=mile, yd|yard|yards=yd, lb|lbs=lb, oz|ounce|ounces=oz, l|liter|liters|litre|litres=l,
ml|milliliter|milliliters|millilitre|millilitres=ml, mph|miles per hour=mph, km/h|kph|kmh|kmph|kilometers per hour|kilometres
per hour=km/h, hr|hrs|hour|hours=hour, min|mins|minute|minutes=minute, sec|secs|second|seconds=second, sq ft|sqft|square
feet|square foot|ft²=sqft, m²|sq m|square meters|square metres|square meter=m², yr|yrs|year|years|years old|year old=year,
day|days=day, week|weeks=week, °|degree|degrees=°, °c|degrees celsius|degree celsius|degrees c|degrees centigrade|°
c|celsius=°c, °f|degrees fahrenheit|degree fahrenheit|degrees f|° f|fahrenheit=°f, percent|pct|%=%,
dollar|dollars|usd|buck|bucks|$=$, euro|euros|eur|€=€, pound|pounds|gbp|£=£, cent|cents|¢=¢, yen|jpy|¥=¥,
rupee|rupees|inr|₹=₹, gb|gigabyte|gigabytes=gb, mb|megabyte|megabytes=mb, hz|hertz=hz, w|watt|watts=w, v|volt|volts=v
""")
# whole answers
WHOLE = _pairs("""
true|correct|yeah|yep|yup|of course|definitely|absolutely|certainly=yes, false|incorrect|nope|nah|not true|definitely not=no,
certainly not|absolutely not|of course not|not really|not at all=no, none=0, noon|midday=12:00, midnight=0:00, us=usa,
half|one half|a half=0.5, one third|a third=1/3, two thirds=2/3, one quarter=0.25, three quarters=0.75, dozen=12, hundred=100,
thousand=1000, million=1000000
""")
CURRENCIES = "$€£¥₹¢"
MONTHS = _pairs("jan=january, feb=february, mar=march, apr=april, jun=june, jul=july, aug=august, sep|sept=september,"
                "oct=october, nov=november, dec=december, january=january, february=february, march=march, april=april,"
                "may=may, june=june, july=july, august=august, september=september, october=october, november=november,"
                "december=december")


def singular(word: str) -> str:
    """A word without its plural ending. It need not be a word ("texas" gives "texa"); what counts is that variants meet."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if (len(word) < 4 or not word.isalpha() or not word.endswith("s") or word.endswith(("ss", "us", "is", "glasses"))
            or word in PLURAL_ONLY or word[:-1] in UNITS_UP_TO_19 or word.removesuffix("ies") + "y" in TENS):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + ("ie" if word[:-1] in ENDS_IN_IE else "y")
    return word[:-2] if word.endswith(("ches", "shes", "xes", "sses", "zzes")) else word[:-1]


def digits(words: list[str]) -> list[tuple[str, int]]:
    """Words with numbers as digits, each with its first place: "two", "hundred" -> ("200", 0); "third" -> ("3rd", 0)."""
    out, i = [], 0
    while i < len(words):
        written, end = _number(words, i)
        out.append((written, i) if end > i else (words[i], i))
        i = max(end, i + 1)
    return out


def _number(words: list[str], i: int) -> tuple[str, int]:
    """The number that begins at place i, in digits, and the place after it; place i if there is none."""
    if words[i:i + 3] == ["half", "a", "dozen"]:
        return "6", i + 3
    total, end, ranked = 0, i, False
    while part := _below_hundred(words, end):
        n, end, ranked = part
        if words[end:end + 1] == ["hundred"] and not ranked:
            rest = _below_hundred(words, end + 1 + (words[end + 1:end + 2] == ["and"]))
            n, end, ranked = (100 * n + rest[0], *rest[1:]) if rest else (100 * n, end + 1, False)
        elif words[end:end + 1] == ["dozen"] and not ranked:
            return str(12 * n), end + 1
        scale = SCALES.get("".join(words[end:end + 1]), 0)
        if not scale or ranked:
            total += n
            break
        total, end = total + n * scale, end + 1
    return ordinal(total) if ranked else str(total), end


def _below_hundred(words: list[str], i: int) -> tuple[int, int, bool] | None:
    """The number below a hundred at place i, the place after it, and whether it is an ordinal ("twenty-first")."""
    word, following = "".join(words[i:i + 1]), "".join(words[i + 1:i + 2])
    if word in ("a", "an"):  # "a hundred", "a dozen"
        return (1, i + 1, False) if following in SCALES or following == "dozen" else None
    if word in TENS:
        place = i + 1 + (following == "-")
        unit = "".join(words[place:place + 1])
        if 0 < UNITS_UP_TO_19.get(unit, 0) < 10 or 0 < ORDINALS.get(unit, 0) < 10:
            return TENS[word] + (UNITS_UP_TO_19.get(unit) or ORDINALS[unit]), place + 1, unit in ORDINALS
        return TENS[word], i + 1, False
    if word in UNITS_UP_TO_19:
        return UNITS_UP_TO_19[word], i + 1, False
    return (ORDINALS[word], i + 1, True) if word in ORDINALS else None


def ordinal(n: int) -> str:
    """1 -> "1st", 22 -> "22nd", 13 -> "13th"."""
    return f"{n}{'th' if 10 <= n % 100 <= 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


def value(text: str) -> str:
    """A number in digits in its shortest form: "1,000" -> "1000", "3.50" -> "3.5", "1,5" -> "1.5", "007" -> "7"."""
    if re.fullmatch(r"(?!0)\d{1,3}(,\d{3})+(\.\d+)?", text):
        text = text.replace(",", "")
    elif re.fullmatch(r"\d+,\d{1,2}", text):
        text = text.replace(",", ".")
    if "," in text:  # a list
        return text
    whole, point, part = text.partition(".")
    part = part.rstrip("0")
    return (whole.lstrip("0") or "0") + (point + part if part else "")


def scaled(text: str, scale: str) -> str:
    """A number in digits times a scale word: "1.5", "million" -> "1500000"."""
    whole, _, part = text.partition(".")
    zeros = len(str(SCALES[scale])) - 1
    return value(f"{whole}{part[:zeros].ljust(zeros, '0')}.{part[zeros:] or '0'}") if text.replace(".", "").isdecimal() else text


def fraction(top: str, bottom: str) -> str:
    """A proper fraction as a decimal number where that is exact within four digits ("1/2" -> "0.5"), else as it is."""
    p, q = int(top), int(bottom)
    if not 0 < p < q or q > 1000 or 10**4 * p % q:
        return f"{top}/{bottom}"
    return value(f"0.{10**4 * p // q:04d}")
