"""Parts of the body: what codes and descriptions say, as regions that can be compared.

Rules that hold here: a word stands for one region or several; what no word of the table is in says nothing, and is
never guessed; a side is only told of what the body has twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from archive.dicom.names import fold

# Region -> the words for it: the defined terms of Body Part Examined (PS3.16 annex L) without spaces, and what
# departments write into descriptions of procedures, in English and German. A word may stand in several regions.
_REGIONS = """
    head: head skull brain cranium cranial cerebral cerebrum neuro neurocranium ccranium pituitary sella temporal iac
          kopf schaedel schadel hirn gehirn cct cmrt nch hypophyse felsenbein circleofwillis
    face: face facial sinus sinuses paranasal pns orbit orbits eye eyes jaw mandible maxilla tmj nose nasal teeth tooth
          dental zygoma parotid nnh gesicht auge orbita kiefer zahn zaehne opg opt
    neck: neck larynx pharynx thyroid carotid carotids hals schilddruese schilddruse karotis nasopharynx tongue
    chest: chest thorax thoracic lung lungs rib ribs sternum mediastinum bronchus trachea cxr hrct pulmonary clavicle
           brustkorb lunge rippen rippe chestabdpelvis chestabdomen tap
    heart: heart cardiac coronary coronaryartery myocardium cta echo echocardiography herz kardio cor aorticvalve
    breast: breast breasts mamma mammo mammography mammographie brust
    abdomen: abdomen abdominal liver kidney kidneys renal spleen pancreas stomach bowel colon gallbladder biliary
             adrenal duodenum appendix rectum oesophagus esophagus mrcp ercp upperabdomen bauch leber niere nieren milz
             pankreas oberbauch magen darm abdomenpelvis chestabdpelvis chestabdomen tap retroperitoneum abd
    pelvis: pelvis pelvic bladder prostate uterus ovary testis scrotum sacroiliac isg becken blase prostata unterbauch
            abdomenpelvis chestabdpelvis tap si hwi fetus obstetric
    cspine: cspine ctspine cervical cervicalspine hws halswirbelsaeule halswirbelsaule wholespine
    tspine: tspine ctspine tlspine thoracicspine dorsalspine bws brustwirbelsaeule brustwirbelsaule wholespine
    lspine: lspine tlspine lsspine lumbar lumbosacral lumbarspine sspine sacrum coccyx lws lendenwirbelsaeule
            lendenwirbelsaule wholespine
    shoulder: shoulder scapula acjoint schulter schulterblatt
    arm: arm humerus upperarm oberarm
    elbow: elbow ellbogen ellenbogen
    forearm: forearm radius ulna unterarm
    wrist: wrist scaphoid handgelenk
    hand: hand hands finger fingers thumb metacarpal daumen
    hip: hip hips hueft huefte hufte acetabulum
    thigh: thigh femur femoral upperleg oberschenkel
    knee: knee knees patella knie meniscus
    leg: leg legs calf tibia fibula lowerleg unterschenkel
    ankle: ankle sprunggelenk osg
    foot: foot feet toe toes heel calcaneus metatarsal fuss zehe ferse
    whole body: wholebody ganzkoerper ganzkorper petct skeletal skelett
"""
# Phrases that are one word of the table, and whose parts alone would mislead.
_PHRASES = (
    ("cervical spine", "cspine"), ("c spine", "cspine"), ("thoracic spine", "tspine"), ("t spine", "tspine"),
    ("dorsal spine", "tspine"), ("lumbar spine", "lspine"), ("l spine", "lspine"), ("ls spine", "lspine"),
    ("whole spine", "wholespine"), ("whole body", "wholebody"), ("upper arm", "upperarm"), ("lower leg", "lowerleg"),
    ("upper leg", "upperleg"), ("upper abdomen", "abdomen"), ("circle of willis", "circleofwillis"),
    ("head and neck", "head neck"), ("temporal bone", "temporal"),
)  # fmt: skip
# Regions next to each other: an image of one often shows something of the other.
_NEAR = (
    ("head", "face"), ("head", "neck"), ("face", "neck"), ("neck", "cspine"), ("neck", "chest"), ("chest", "heart"),
    ("chest", "tspine"), ("chest", "breast"), ("chest", "abdomen"), ("abdomen", "pelvis"), ("abdomen", "lspine"),
    ("pelvis", "hip"), ("pelvis", "lspine"), ("cspine", "tspine"), ("tspine", "lspine"), ("shoulder", "arm"),
    ("shoulder", "chest"), ("arm", "elbow"), ("elbow", "forearm"), ("forearm", "wrist"), ("wrist", "hand"),
    ("hip", "thigh"), ("thigh", "knee"), ("knee", "leg"), ("leg", "ankle"), ("ankle", "foot"),
)  # fmt: skip
WHOLE = "whole body"
PAIRED = frozenset(
    {"breast", "shoulder", "arm", "elbow", "forearm", "wrist", "hand", "hip", "thigh", "knee", "leg", "ankle", "foot"}
)
# Laterality (PS3.3 C.7.3.1.1.1) and how descriptions say it.
_SIDES = {
    **dict.fromkeys(("l", "left", "lt", "links", "linke", "linkes", "linker", "li"), "left"),
    **dict.fromkeys(("r", "right", "rt", "rechts", "rechte", "rechtes", "rechter", "re"), "right"),
    **dict.fromkeys(("b", "both", "bilateral", "bilat", "beide", "beidseits", "bds"), "both"),
}
_LETTERS = frozenset("lrb")  # only a value of their own: "L spine" is no left one

_BY_PHRASE = dict(_PHRASES)
_PHRASE = re.compile(rf"\b({'|'.join(sorted(_BY_PHRASE, key=len, reverse=True))})\b")
_WORD = re.compile(r"[a-z0-9äöüß]+")


def _table() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    region = ""
    for line in _REGIONS.strip().splitlines():
        name, colon, words = line.strip().rpartition(":")
        region = name or region
        for word in (words if colon else line).split():
            found.setdefault(word, set()).add(region)
    return {word: frozenset(regions) for word, regions in found.items()}


_BY_WORD = _table()
_NEIGHBOURS = frozenset(_NEAR) | frozenset((second, first) for first, second in _NEAR)


@lru_cache(maxsize=4096)  # a department has some hundred descriptions
def words_of(text: str) -> tuple[str, ...]:
    """The words of a text as they are compared; phrases of the table are one word."""
    plain = " ".join(_WORD.findall(fold(text)))
    return tuple(_PHRASE.sub(lambda found: _BY_PHRASE[found[0]], plain).split())


def regions(texts: Iterable[str]) -> frozenset[str]:
    """All regions that codes or descriptions name."""
    return frozenset(region for text in texts for word in words_of(text) for region in _BY_WORD.get(word, ()))


def are_near(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether a region of one is next to one of the other, or either is the whole body."""
    if WHOLE in one | other:
        return bool(one and other)
    return any((first, second) in _NEIGHBOURS for first in one for second in other)


def side(values: Iterable[str], texts: Iterable[str]) -> str:
    """``left``, ``right``, ``both`` or nothing: by values of Laterality, else by descriptions."""
    said = {_SIDES.get(value.strip().lower(), "") for value in values} - {""}
    if not said:
        words = {word for text in texts for word in words_of(text)} - _LETTERS
        said = {_SIDES[word] for word in words if word in _SIDES}
    return "both" if len(said) > 1 else next(iter(said), "")
