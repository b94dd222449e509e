"""The words and numbers of RTF that a reader must know: destinations, characters, character sets.

In:  nothing.
Out: tables, with the names of the RTF 1.9.1 specification.
"""

from __future__ import annotations

_NO_WORDS = """
annotation atnauthor atndate atnicn atnid atnparent atnref atntime atrfend atrfstart background bkmkend bkmkstart
blipuid buptim category colorschememapping colortbl comment company creatim datafield datastore defchp defpap
docvar factoidname falt filetbl fldinst fontemb fontfile fonttbl ftncn ftnsep ftnsepc generator gridtbl hlinkbase
keycode keywords latentstyles listlevel listname listoverridetable listpicture listtable liststylename manager
mailmerge nesttableprops nextfile nonesttables nonshppict objalias objclass objdata objname objsect objtime
oleclsid operator panose password passwordhash pict pn pnseclvl pntxta pntxtb printim private propname protusertbl
revtbl revtim rsidtbl rxe shprslt sn sp staticval stylesheet subject sv svb tc template themedata ud_ansi
userprops wgrffmtfilter windowcaption writereservation writereservhash xe xform xmlattrname xmlattrvalue xmlclose
xmlname xmlnstbl xmlopen
"""
SKIPPED = frozenset(_NO_WORDS.split())  # groups without any text of the document
# Groups after `\\*` whose words are part of the text.
KEPT = frozenset({"shpinst", "shptxt", "shppict", "ud", "do", "dptxbxtext", "mmath", "moMath", "moMathPara", "mr"})
BOXES = frozenset({"shptxt", "dptxbxtext"})
ASIDE = frozenset(
    {"header", "headerl", "headerr", "headerf", "footer", "footerl", "footerr", "footerf", "footnote", "endnote"}
)
SIGNS = {
    "tab": "\t",
    "line": "\n",
    "lbr": "\n",
    "softline": "\n",
    "emdash": "\u2014",
    "endash": "\u2013",
    "lquote": "\u2018",
    "rquote": "\u2019",
    "ldblquote": "\u201c",
    "rdblquote": "\u201d",
    "bullet": "\u2022",
    "emspace": " ",
    "enspace": " ",
    "qmspace": " ",
    "zwj": "\u200d",
    "zwnj": "\u200c",
}
SYMBOLS = {"~": "\xa0", "_": "-", "-": "", "\\": "\\", "{": "{", "}": "}", "|": "", ":": ""}
PARAGRAPHS = frozenset({"par", "sect", "page", "column", "row", "nestrow"})
CELLS = frozenset({"cell", "nestcell"})
CHARSETS = {
    77: "mac_roman",
    128: "cp932",
    129: "cp949",
    130: "johab",
    134: "gb18030",
    136: "cp950",
    161: "cp1253",
    162: "cp1254",
    163: "cp1258",
    177: "cp1255",
    178: "cp1256",
    186: "cp1257",
    204: "cp1251",
    222: "cp874",
    238: "cp1250",
    255: "cp437",
}
DOCUMENT_SETS = {"mac": "mac_roman", "pc": "cp437", "pca": "cp850", "ansi": "cp1252"}
