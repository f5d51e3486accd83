"""VQA accuracy, with answers written as the benchmark's own script writes them (github.com/GT-Vision-Lab/VQA, vqaEval.py)."""

import re

# Any of these with one apostrophe missing becomes the whole form. The script's map has the forms of "I" in capitals only,
# which no answer in lower case meets, and maps "let's" and "she's" to themselves; so they are not here.
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've""".split()
_CONTRACTIONS = {form[:i] + form[i + 1:]: form for form in _CONTRACTED for i, mark in enumerate(form) if mark == "'"} | {
    "somebody'd": "somebodyd"}
_DIGITS = {"none": "0"} | {
    word: str(i) for i, word in enumerate("zero one two three four five six seven eight nine ten".split())}
_ARTICLES = ("a", "an", "the")
_PUNCTUATION = ";/[]\"{}()=+\\_-><@`,?!"
_PERIOD, _COMMA = re.compile(r"\.(?!\d)"), re.compile(r"\d,\d")
_PERIODS = 32  # the most that go: the script gives `re.UNICODE`, which is 32, in the place of the count


def written(answer: str) -> str:
    """An answer as the script writes it: "The two dogs!" -> "2 dogs".

    A mark goes without a trace if a blank stands beside it, or a comma between digits anywhere in the answer; else it becomes
    a blank. Then points that no digit follows go, number words up to ten become digits ("none" is 0), articles go, and
    contractions get their apostrophe. Signs are marks: "-5" is "5". Apostrophes, colons, "%", "$" and "*" stay.
    """
    answer = answer.replace("\n", " ").replace("\t", " ").strip()
    text, joined = answer, _COMMA.search(answer)
    for mark in _PUNCTUATION:
        text = text.replace(mark, "" if joined or f"{mark} " in answer or f" {mark}" in answer else " ")
    words = (_DIGITS.get(word, word) for word in _PERIOD.sub("", text, count=_PERIODS).lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(prediction: str, answers: list[str]) -> float:
    """VQA accuracy: min(1, n / 3) with n agreeing annotators, averaged over leaving each annotator out (Antol et al. 2015).

    With ten annotators, one that agrees gives 0.3, two give 0.6, three 0.9, four or more 1. Prediction and answers are
    compared as `written`. The script writes out numbers and articles of the prediction only, and marks of the answers only
    where they are not all alike, since the answers of its data set come that way already; those of other data do not. As in
    the script, an answer of which nothing is left ("", "+", "the") agrees with another such.
    """
    agree = [written(answer) == written(prediction) for answer in answers]
    return sum(min(1.0, (sum(agree) - mine) / 3) for mine in agree) / len(agree)
