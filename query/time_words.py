"""Words that speak of time, in several languages, as classes that a grammar can read.

One table for all languages: "letzten", "dernière" and "pasado" are all LAST, "woche" and "semaine"
both week, so that one grammar reads them in any order ("last week", "la semaine dernière"). A word
is here only where it hardly means anything else, or where the grammar asks for company (months and
short weekdays do). Data only; months are those of ``date_terms``.
"""

from __future__ import annotations

from typing import Final

Table = dict[str, tuple[str, object]]

_UNITS: Final = {
    "minute": "minute minutes minuten minuto minutos minuti minuut",
    "hour": "hour hours stunde stunden heure heures hora horas ora ore uur uren",
    "day": "day days tag tage tagen jour jours día días dia dias giorno giorni dag dagen",
    "weekend": "weekend weekends wochenende wochenenden",
    "week": "week weeks woche wochen semaine semaines semana semanas settimana settimane weken",
    "month": "month months monat monate monaten mois mes meses mese mesi mês maand maanden",
    "year": "year years jahr jahre jahren année années ans año años anno anni ano anos jaar jaren",
}
_WEEKDAYS: Final = """
monday mondays montag lundi lunes lunedì lunedi segunda-feira maandag
tuesday tuesdays dienstag mardi martes martedì martedi terça-feira dinsdag
wednesday wednesdays mittwoch mercredi miércoles mercoledì mercoledi quarta-feira woensdag
thursday thursdays donnerstag jeudi jueves giovedì giovedi quinta-feira donderdag
friday fridays freitag vendredi viernes venerdì venerdi sexta-feira vrijdag
saturday saturdays samstag sonnabend samedi sábado sabato zaterdag
sunday sundays sonntag dimanche domingo domenica zondag
"""
_SHORT_WEEKDAYS: Final = "mon tue wed thu fri sat sun"
_SEASONS: Final = {
    "spring": "spring springtime frühling frühjahr printemps primavera lente voorjaar",
    "summer": "summer summers sommer été verano estate verão zomer",
    "autumn": "autumn fall herbst automne otoño autunno outono herfst najaar",
    "winter": "winter winters hiver invierno inverno",
}
_RELATIVE: Final = {
    "last": "last past previous letzte letzten letzter letztes letztem vergangene vergangenen"
    " vergangenes vorige vorigen dernier dernière derniers dernières passé passée"
    " pasado pasada pasados pasadas último última últimos últimas scorso scorsa scorsi scorse"
    " passado passada passados passadas vorig vorige afgelopen",
    "this": "this diese diesen dieser dieses diesem cette ce este esta esse essa questo questa"
    " deze dit",
    "next": "next coming upcoming following nächste nächsten nächster nächstes nächstem kommende"
    " kommenden prochain prochaine próximo próxima prossimo prossima volgende komende",
}
_DAYS: Final = {
    0: "today tonight heute hoy oggi hoje vandaag aujourd'hui",
    -1: "yesterday gestern hier ayer ieri ontem gisteren",
    -2: "vorgestern avant-hier anteayer antier altroieri anteontem eergisteren",
    1: "tomorrow morgen demain mañana domani amanhã",
    2: "übermorgen après-demain overmorgen",
}
_ROLES: Final = {
    "AGO": "ago fa geleden atrás earlier back",
    "AGO_BEFORE": "vor hace há",
    "SINCE": "since seit depuis desde sinds dal dalla",
    "UNTIL": "until till bis jusque jusqu'à hasta fino até tot by",
    "BEFORE": "before prior bevor avant antes prima vor",
    "AFTER": "after following nach nachdem après después dopo depois",
    "DURING": "during während pendant durante tijdens",
    "IN": "in on im am en em nel nella al op during of from for for di de du à at around über",
    "BETWEEN": "between zwischen entre tra fra tussen",
    "FROM": "from von vom de da van",
    "AND": "and und et y e en",
    "TO": "to through bis à a al til",
    "OF": "of de di des del von the der den die das la le les el los il lo os as o in am im au"
    " le l d",
    "MANY": "few couple several paar quelques unos unas alcuni alcune alguns algumas",
}
_NUMBERS: Final = """
a an one ein eine einen einem einer eins un une uno una um uma een
two zwei deux dos due dois duas twee couple
three drei trois tres tre três drie
four vier quatre cuatro quattro quatro
five fünf cinq cinco cinque vijf
six sechs seis sei zes
seven sieben sept siete sette sete zeven
eight acht huit ocho otto oito
nine neun neuf nueve nove negen
ten zehn dix diez dieci dez tien
eleven elf onze once undici
twelve zwölf douze doce dodici doze twaalf
"""
_FIRST: Final = "first earliest erste ersten erstes erster zuerst première primera prima primeira"
_LATEST: Final = "latest newest recently zuletzt neueste neuesten neulich récemment recientemente"
_NOW: Final = (
    "current currently nowadays now jetzt aktuell derzeit actuellement actualmente attualmente"
)


def _lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip().splitlines()]


def _make() -> Table:
    table: Table = {}

    def enter(kind: str, value: object, words: list[str]) -> None:
        table.update((word, (kind, value)) for word in words)

    for number, names in enumerate(_lines(_NUMBERS), start=1):
        enter("NUMBER", number, names)
    for unit, words in _UNITS.items():
        enter("UNIT", unit, words.split())
    for day, names in enumerate(_lines(_WEEKDAYS)):
        enter("WEEKDAY", day, names)
    for season, words in _SEASONS.items():
        enter("SEASON", season, words.split())
    for relative, words in _RELATIVE.items():
        enter("RELATIVE", relative, words.split())
    for shift, words in _DAYS.items():
        enter("DAY", shift, words.split())
    return table


WORDS: Final = _make()
"""A word's class and value, for words that have one meaning in time."""
SHORT_WEEKDAYS: Final = {word: day for day, word in enumerate(_SHORT_WEEKDAYS.split())}
ROLES: Final = {role: frozenset(words.split()) for role, words in _ROLES.items()}
"""Words that may stand in a place of the grammar; one word may have several roles."""
FIRST: Final = frozenset(_FIRST.split())
LATEST: Final = frozenset(_LATEST.split())
NOW: Final = frozenset(_NOW.split())
# What "first" and "last" say nothing of time with.
NAMES_AFTER_ORDER: Final = frozenset(
    "name names aid floor class grade lady half language degree straw resort born door step page"
    " one".split()
)
FUTURE: Final = frozenset(
    "will shall upcoming planned plan plans planning scheduled appointment appointments due going"
    " werde wird geplant vais prochainement".split()
)
