"""Stop words by language: words that say how something is asked, not what about.

Articles, pronouns, auxiliaries, prepositions and, for memory questions above all, question words:
a question's "when", "where" and "who" match chatter, not answers. Data only. Changing a word
changes what is indexed: raise ``TOKENIZER_VERSION`` with it.
"""

# ruff: noqa: RUF001 - letters of other scripts are what this file is about

from __future__ import annotations

from typing import Final

_ENGLISH = """
a about above after again against all am an and any are as at be because been before being below
between both but by can cannot could did do does doing done down during each either else few for
from further had has have having he her here hers herself him himself his i if in into is it its
itself just let me more most my myself no nor not of off on once only or other our ours ourselves
out over own same shall she should since so some such than that the their theirs them themselves
then there these they this those through to too under until up upon us very was we were will with
would you your yours yourself yourselves may might must
who whom whose what which when where why how whether whoever whatever whichever whenever wherever
however ain aren couldn didn doesn don hadn hasn haven isn mightn mustn needn shan shouldn wasn
weren won wouldn d ll m re s t ve im ive id dont doesnt didnt isnt arent wasnt werent wont cant
couldnt shouldnt wouldnt havent hasnt hadnt whats whos wheres whens hows thats theres lets youre
theyre http https www
"""
_GERMAN = """
aber alle allem allen aller alles als also am an ander andere anderem anderen anderer anderes auch
auf aus bei bin bis bist da damit dann das dass daß dein deine deinem deinen deiner dem den denn
der des dessen dich die dies diese diesem diesen dieser dieses dir doch dort du durch ein eine einem
einen einer eines er es etwas euch euer eure für gegen gewesen hab habe haben hat hatte hatten hier
hin hinter ich ihm ihn ihnen ihr ihre ihrem ihren ihrer im in ist ja jede jedem jeden jeder jedes
kann kein keine keinem keinen keiner können könnte mein meine meinem meinen meiner mich mir mit muss
musste nach nicht nichts noch nun nur ob oder ohne sehr sein seine seinem seinen seiner sich sie
sind so solche soll sollte sondern über um und uns unser unsere unter viel vom von vor war waren
warst weil werde werden wie wieder will wir wird wirst wo wollen wollte würde würden während zu zum
zur zwar zwischen
wer wen wem wessen was wann warum weshalb wieso woher wohin womit wofür worüber welche welchem
welchen welcher welches wieviel wie
"""
_FRENCH = """
à au aux avec ce ces cet cette dans de des du elle elles en es est et étaient était été être eu eux
il ils je la le les leur leurs lui ma mais me même mes moi mon ne nos notre nous on ou où par pas
pour qu sa se sera ses son sont suis sur ta te tes toi ton tu un une vos votre vous y a ai ont as
avait avaient avez avons d l j m n s t c
qui que quoi quel quelle quels quelles quand comment combien pourquoi dont lequel laquelle est-ce
"""
_SPANISH = """
a al algo ante antes aquel aquella como con contra cual cuales de del desde donde durante e el él
ella ellas ellos en entre era eran es esa esas ese eso esos esta está están estas este esto estos
fue fueron ha había han has he hay la las le les lo los más me mi mí mis mucho muy nada ni no nos
nosotros nuestra nuestro o os otra otro para pero poco por porque que se sea ser si sí sin sobre son
soy su sus también te tiene tu tú tus un una uno unos y ya yo
qué quién quien quiénes cuándo cuando dónde cómo cuál cuáles cuánto cuánta cuántos cuántas
"""
_ITALIAN = """
a ad agli ai al alla alle allo anche c che ci come con contro cui d da dagli dai dal dalla dalle
dallo degli dei del della delle dello di e è ed era erano essere fu gli ha hai hanno ho i il in io l
la le lei li lo loro lui ma me mi mia mie miei mio ne negli nei nel nella nelle nello noi non nostra
nostro o per più quella quelle quelli quello questa queste questi questo se sei si sia siamo sono su
sua sue sugli sui sul sulla sulle suo suoi ti tra tu tua tue tuo un una uno vi voi
chi cosa quando dove perché quale quali quanto quanta quanti quante
"""
_PORTUGUESE = """
a à ao aos as às até com como da das de dela dele deles do dos e é ela elas ele eles em entre era
eram essa esse esta está este eu foi foram há isso isto já lhe mais mas me mesmo meu meus minha
muito na nas não nem no nos nós o os ou para pela pelas pelo pelos por são se sem ser seu seus só
sua suas também te tem tu um uma você vocês
quem que quê quando onde porquê porque qual quais quanto quanta quantos quantas
"""
_DUTCH = """
aan al alles als altijd andere ben bij daar dan dat de der deze die dit doch doen door dus een en er
ge geen haar had heb hebben heeft hem het hier hij hun ik in is ja je kan kon kunnen maar me meer
men met mij mijn moet na naar niet niets nog nu of om omdat ons onder ook op over reeds te tegen
toch toen tot u uit uw van veel voor want waren was wat we wel werd wezen wil worden zal ze zelf
zich zij zijn zo zonder zou
wie wat wanneer waar waarom hoe welk welke hoeveel waarheen
"""
_RUSSIAN = """
и в во не на я он с со как а то все она так его но да ты к у же вы за бы по только ее её мне было
вот от меня еще ещё нет о из ему теперь даже ну ли если уже или ни быть был него до вас нибудь вам
ведь там потом себя ничего ей может они тут есть надо ней для мы тебя их чем была сам чтоб без будто
чего раз тоже себе под будет ж тогда этот того потому этого ним здесь этом один мой тем чтобы нее
сейчас были при над об про них эту моя свою этой перед иногда можно всю между это мои моих моего
моей кто кого кому кем ком что чему когда где куда откуда почему зачем как какой какая какое какие
какого какую каких сколько чей чья чьё чье чьи
"""
_BY_LANGUAGE: Final = {
    "english": _ENGLISH,
    "german": _GERMAN,
    "french": _FRENCH,
    "spanish": _SPANISH,
    "italian": _ITALIAN,
    "portuguese": _PORTUGUESE,
    "dutch": _DUTCH,
    "russian": _RUSSIAN,
}

# Characters and pairs of characters that carry grammar or a question. Text is not cut at them:
# names contain them, and cutting lost one Chinese answer in six among a question's first five.
_CJK = """
的 了 吗 嗎 呢 吧 啊 呀 着 我 你 您 他 她 它 是 在 和 与 與 及 把 被 也 都 很 就 还 這 这 那 谁 誰 哪
什么 什麼 时候 時候 为什 為什 怎么 怎麼 怎样 怎樣 么样 麼樣 多少 哪里 哪裡 哪儿 哪些 哪个 哪個 几个 几点
我们 我們 你们 你們 他们 他們 她们 她們 这个 這個 那个 那個 请问 請問 是不 不是 我的 你的 他的 她的 了吗
いつ どこ だれ なぜ どう どん どの どれ なに なん いく 何時 何処 何故 何 です ます した まし でし ませ せん
とい いう こと もの それ これ あれ その この あの から まで より では には てい いる いた して する され
すか たか のか はど とは のは では
は が を に で と も の へ や か ね よ
"""

CJK_STOPS: Final = frozenset(_CJK.split())
KOREAN_STOPS: Final = frozenset(
    [
        "언제",
        "어디",
        "어디서",
        "어디에",
        "어디에서",
        "누구",
        "누가",
        "누구의",
        "무엇",
        "무엇을",
        "무엇이",
        "뭐",
        "뭘",
        "왜",
        "어떻게",
        "어떤",
        "어느",
        "몇",
        "얼마",
        "얼마나",
        "그",
        "이",
        "저",
        "것",
        "수",
        "및",
        "그리고",
        "하지만",
        "그러나",
        "나는",
        "내가",
        "나의",
        "너는",
        "너의",
        "우리",
        "우리는",
        "있다",
        "있습니다",
        "있어",
        "입니다",
        "이다",
        "했다",
        "합니다",
        "하는",
    ]
)
LANGUAGES: Final = tuple(sorted(_BY_LANGUAGE))


def stop_words(language: str) -> frozenset[str]:
    """The stop words of a language, casefolded; the Russian ones are always among them."""
    words = _BY_LANGUAGE.get(language, "").split()
    return frozenset(word.casefold() for word in (*words, *_RUSSIAN.split()))
