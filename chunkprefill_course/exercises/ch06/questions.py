"""Predictions and questions of chapter 6: what does all this scheduling cost?"""

from __future__ import annotations

from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms.choice import Choice, Option
from chunkprefill_course.forms.written import Written

guess_visits = Choice(
    id="guess-visits",
    predict=True,
    number="% of the visits",
    prompt="A request has a prompt of 4,000 tokens and writes 200. Its prompt is cut into chunks of 512. "
    "Each time it takes part in a step, the scheduler has to visit it. How many of these visits are for "
    "chunks?",
    options=(
        Option(
            "few",
            "About one in twenty-five.",
            "Eight chunks, and then a visit for every token but the first. When answers are long, most "
            "visits are for decoding, whether prompts are cut or not.",
        ),
        Option(
            "half",
            "About half.",
            "For that the answer would need about as many tokens as the prompt has chunks.",
        ),
        Option(
            "most",
            "Nearly all.",
            "It would take an answer of a word or two. What cutting adds is more "
            "than visits, though: look at the state that has to be kept meanwhile.",
        ),
    ),
)

guess_part = Choice(
    id="guess-part",
    predict=True,
    number="ms of the 22",
    prompt="In 2024 researchers took apart the 22 ms of scheduling between two passes of a server (vLLM 0.5.4, Llama-8B "
    "on an A6000). One part was the decision: who runs next, with how many tokens. How large was it?",
    options=(
        Option(
            "most",
            "More than half.",
            "It gives scheduling its name, but most of what is called scheduling overhead is not a "
            "decision at all.",
        ),
        Option(
            "quarter",
            "About a quarter.",
            "Building the inputs took about that: turning lists into tensors, and copying those to the "
            "device.",
        ),
        Option(
            "small",
            "About a twentieth.",
            "A walk over the requests that run, some sums, some blocks. "
            "Building tensors and turning ids back into text took several times as long.",
        ),
    ),
)

guess_model = Choice(
    id="guess-model",
    predict=True,
    prompt="64 chats decode on one H100. The scheduler takes about 20 µs for each of them in every step, and "
    "the device waits meanwhile. On which model is its share of the time largest?",
    options=(
        Option(
            "small",
            "On one of 135 million parameters.",
            "The step is the shortest there, and the "
            "scheduler's work is the same: it visits requests, and does not know how large the model is.",
        ),
        Option(
            "large",
            "On one of 70 billion parameters.",
            "There a step takes long. The scheduler does the same work for it as for the small one.",
        ),
        Option(
            "same",
            "It is the same: there are 64 visits on each.",
            "The visits are the same. Their share is not, because the step is more than forty times longer.",
        ),
    ),
)

many_small = Choice(
    id="many-small",
    prompt="An engine used to run each prompt as one large operation. Now it runs it as many small ones, "
    "with short urgent tasks of other sequences in between. What is the most direct consequence for the "
    "scheduler?",
    options=(
        Option(
            "a",
            "It has more and smaller tasks for each sequence to track and to dispatch.",
            "One task became many. For each the scheduler decides, allocates blocks, builds inputs and "
            "updates its records, and between two of them it must know how far a half-built cache has "
            "got.",
            True,
        ),
        Option(
            "b",
            "It needs more memory: each piece brings a cache of its own.",
            "All pieces extend one cache, and it ends up as large as before. It is *held* for longer "
            "because the prompt takes longer: a consequence too, but a less direct one.",
        ),
        Option(
            "c",
            "It has less to do: small tasks are easier to place.",
            "Each is easier to place, and "
            "there are many more of them. The work of a visit hardly depends on how large the task is.",
        ),
        Option(
            "d",
            "It must compute more: attention between the pieces comes on top.",
            "Every query meets "
            "the same keys as before. What comes on top on the device is reading, of weights and of the "
            "cache, and no scheduler does that.",
        ),
        Option(
            "e",
            "It can drop the order of arrival: urgent tasks decide.",
            "It *may* serve urgent tasks first, but it does so only if its order of admission says so. "
            "Pieces give it the opportunity, not the rule.",
        ),
    ),
)

N_RUNNING, VISIT_US = 64, 20  # of the written question
LONG_MS, SHORT_MS = 22, 12  # a step with budget 512, and with 256
N_PROMPT, BUDGETS = 4_096, (512, 256)


VISITS_MS = 1e-3 * N_RUNNING * VISIT_US
STEPS = tuple(-(-N_PROMPT // (budget - N_RUNNING)) for budget in BUDGETS)


def _share(step_ms: float) -> float:
    """Scheduling's share of a serial step: its own time is not in the step's."""
    return VISITS_MS / (VISITS_MS + step_ms)


overhead_in_words = Written(
    id="overhead-in-words",
    title="Where did the throughput go?",
    prompt=prose(
        "overhead-in-words",
        before=BUDGETS[0],
        after=BUDGETS[1],
        running=N_RUNNING,
        visit=VISIT_US,
        long=LONG_MS,
        short=SHORT_MS,
        n_prompt=f"{N_PROMPT:,}",
    ),
    rubric=(
        (
            2,
            f"Steps: the chunk is what the decodes leave of the budget, so {STEPS[0]} steps become "
            f"{STEPS[1]}. (One point if the decodes are forgotten: 8 and 16.)",
        ),
        (
            1,
            f"A step's scheduling is {N_RUNNING} × {VISIT_US} µs = {VISITS_MS:.2f} ms in both: it goes by "
            "requests, not by tokens.",
        ),
        (
            2,
            f"The share rises from {_share(LONG_MS):.1%} to {_share(SHORT_MS):.1%}: the same time, in a "
            "shorter step.",
        ),
        (
            2,
            "It says that scheduling is the smaller part of the loss, by comparing the two sums, and that "
            "the rest is on the device: each step reads all weights again, and the cached keys and values.",
        ),
        (
            1,
            "When it does not matter: long steps (a large model, long chunks, long contexts), few requests, "
            "or scheduling that is hidden behind the step before.",
        ),
        (
            2,
            "Two remedies out of: schedule the next step while this one runs; make a visit cheaper (no "
            "searching in lists, inputs kept and changed instead of built anew); let fewer requests run at "
            "once; CUDA graphs for what launching costs.",
        ),
    ),
    answer=prose(
        "overhead-answer",
        running=N_RUNNING,
        before=BUDGETS[0],
        after=BUDGETS[1],
        chunk_before=BUDGETS[0] - N_RUNNING,
        chunk_after=BUDGETS[1] - N_RUNNING,
        steps_before=STEPS[0],
        steps_after=STEPS[1],
        visit=VISIT_US,
        visits=f"{VISITS_MS:.2f}",
        long=LONG_MS,
        short=SHORT_MS,
        share_before=f"{_share(LONG_MS):.1%}",
        share_after=f"{_share(SHORT_MS):.1%}",
        scheduling_before=f"{STEPS[0] * VISITS_MS:.0f}",
        scheduling_after=f"{STEPS[1] * VISITS_MS:.0f}",
        device_before=STEPS[0] * LONG_MS,
        device_after=STEPS[1] * SHORT_MS,
        loss=f"{STEPS[1] * (SHORT_MS + VISITS_MS) - STEPS[0] * (LONG_MS + VISITS_MS):.0f}",
        scheduling_loss=f"{(STEPS[1] - STEPS[0]) * VISITS_MS:.0f}",
    ),
    minutes=12,
    level="evaluate",
)

what_to_fix = Choice(
    id="what-to-fix",
    prompt=prose("what-to-fix"),
    options=(
        Option(
            "a",
            "Write a faster policy.",
            "Deciding is 0.3 of 6 ms. If it took no time at all, the step would take 9.7 ms.",
        ),
        Option(
            "b",
            "Raise the token budget.",
            "Longer chunks make the steps longer, so the share falls, and "
            "every decoding request waits longer. The 3.6 ms stay: they do not depend on the chunk.",
        ),
        Option(
            "c",
            "Keep the inputs from step to step, and only add what is new.",
            "They grow with the "
            "context: each step writes down again all blocks of all requests, of which one has changed. "
            "That is the largest part, and it need not be there.",
            True,
        ),
        Option(
            "d",
            "Use CUDA graphs.",
            "They would take away most of the 1.2 ms of launching, where the steps are decodes alone. "
            "Worth doing, but second.",
        ),
    ),
)

lost_graphs = Choice(
    id="lost-graphs",
    prompt="A small model serves 30 chats from full CUDA graphs, 1 ms a step. Then chunked prefilling is "
    "switched on, and a document comes. The steps take 4 ms, though a chunk of 64 tokens should add a tenth "
    "of a millisecond. What is the likely reason?",
    options=(
        Option(
            "a",
            "The document's cache does not fit.",
            "Then a request would be evicted and computed "
            "again. None is, and the first step with a chunk is already slow.",
        ),
        Option(
            "b",
            "Attention of the chunk over its prefix.",
            "It grows along the prompt. That explains slow last chunks, not a slow first one.",
        ),
        Option(
            "c",
            "Steps with a chunk in them do not fit a graph that was recorded for decodes.",
            "The kernels are launched one by one again, and with few tokens in the step launching takes "
            "longer than running. Larger models lose time too while contexts are short; only many long "
            "contexts hide the launches.",
            True,
        ),
    ),
)

when_hidden = Choice(
    id="when-hidden",
    prompt="An engine schedules the next step while this one runs. Scheduling takes 3 ms. For which steps is "
    "that cost not hidden?",
    options=(
        Option(
            "a",
            "For steps of 2 ms.",
            "The device is done after 2 ms and waits for the third. Hiding "
            "ends where scheduling takes longer than the step.",
            True,
        ),
        Option(
            "b",
            "For steps of 20 ms.",
            "There 17 ms are left over. The longer the step, the more fits behind it.",
        ),
        Option(
            "c",
            "For none: what overlaps costs nothing.",
            "It costs nothing only as long as it fits. Where model and scheduler share cores, it is not "
            "free even then.",
        ),
    ),
)

why_smaller_dear = Choice(
    id="why-smaller-dear",
    prompt="From chapter 5: below the saturation point, half the chunk means about twice the time for a "
    "whole prompt. What is read again and again?",
    options=(
        Option(
            "a",
            "The weights: every pass reads all of them, however few its tokens.",
            "That is the larger part of what small chunks cost on the device. Launching and scheduling "
            "come on top.",
            True,
        ),
        Option(
            "b",
            "The prompt: each chunk embeds the tokens before it once more.",
            "Their keys and values are in the cache. No token is embedded twice.",
        ),
        Option(
            "c",
            "The plan: the scheduler decides anew for every chunk.",
            "It does, and a decision takes microseconds where the weights take milliseconds.",
        ),
    ),
)

which_grows = Choice(
    id="which-grows",
    prompt="The same prompt, in chunks of 256 in place of 1,024. Nothing else changes. Which of these hardly "
    "grows?",
    options=(
        Option("a", "The visits of the prompt to the scheduler.", "Four times as many: one for each chunk."),
        Option(
            "b",
            "The steps that hold a chunk beside decodes.",
            "Four times as many, too. Each of them loses a full CUDA graph, on an engine that has them.",
        ),
        Option(
            "c",
            "The cost of deciding one step.",
            "It depends on the number of requests in the step, and that is the same as before. There are "
            "more steps, but none of them is harder to decide.",
            True,
        ),
        Option(
            "d",
            "The moments at which its cache is half-built.",
            "From three to fifteen. In one piece there would be none.",
        ),
    ),
)
