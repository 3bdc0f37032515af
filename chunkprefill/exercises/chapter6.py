"""Predictions and questions of chapter 6: what does all this scheduling cost?"""

from __future__ import annotations

from chunkprefill.exercises.choice import Choice, Option
from chunkprefill.exercises.written import Written

guess_visits = Choice(
    id="guess-visits",
    predict=True,
    prompt="A request has a prompt of 4,000 tokens and writes 200. Its prompt is cut into chunks of 512. "
    "Each time it takes part in a step, the scheduler has to visit it. How many of these visits are for "
    "chunks?",
    options=(
        Option("few", "About one in twenty-five.", "Eight chunks, and then a visit for every token but the "
               "first. Where answers are long, decoding makes the visits, and did so before anybody cut "
               "prompts."),
        Option("half", "About half.", "That takes an answer about as many tokens long as the prompt has "
               "chunks: a document that is read for one word."),
        Option("most", "Nearly all.", "It would take an answer of a word or two. What cutting adds is more "
               "than visits, though: look at the state that has to be kept meanwhile."),
    ),
)  # fmt: skip

guess_part = Choice(
    id="guess-part",
    predict=True,
    prompt="In 2024 somebody took apart the 22 ms between two tokens of a server (vLLM 0.5.4). One part was "
    "the scheduler's decision: who runs next, with how many tokens. How large was it?",
    options=(
        Option("most", "More than half.", "It is the part that has the name. Most of what is called "
               "scheduling overhead is not a decision at all."),
        Option("quarter", "About a quarter.", "Building the inputs took about that. It came after the "
               "decision: lists into tensors, and those to the device."),
        Option("small", "About a twentieth.", "A walk over the requests that run, some sums, some blocks. "
               "Building tensors and turning ids back into text took several times as long."),
    ),
)  # fmt: skip

guess_model = Choice(
    id="guess-model",
    predict=True,
    prompt="64 chats decode on one H100. The scheduler takes about 20 µs for each of them in every step, and "
    "the device waits meanwhile. On which model is its share of the time largest?",
    options=(
        Option("small", "On one of 135 million parameters.", "The step is the shortest there, and the "
               "scheduler's work is the same: it visits requests, and does not know how large the model is."),
        Option("large", "On one of 70 billion parameters.", "There everything takes long, the model most of "
               "all. The scheduler does for it what it does for the small one."),
        Option("same", "It is the same: there are 64 visits on each.", "The visits are the same. Their share "
               "is not, for they are held against a step that is a few hundred times longer."),
    ),
)  # fmt: skip

many_small = Choice(
    id="many-small",
    prompt="An engine used to run each prompt as one large operation. Now it runs it as many small ones, "
    "with short urgent tasks of other sequences in between. What is the most direct consequence for the "
    "scheduler?",
    options=(
        Option("a", "It has more and smaller tasks for each sequence to track and to dispatch.", "One task "
               "became many. For each it decides, takes blocks, builds inputs and keeps books, and between "
               "two of them it must know how far a half-built cache has come.", True),
        Option("b", "It needs more memory: each piece brings a cache of its own.", "All pieces extend one "
               "cache, and it ends up as large as before. It is *held* for longer, for the prompt takes "
               "longer; that is a consequence, and a less direct one."),
        Option("c", "It has less to do: small tasks are easier to place.", "Each is easier to place, and "
               "there are many more of them. The work of a visit hardly depends on how large the task is."),
        Option("d", "It must compute more: attention between the pieces comes on top.", "Every query meets "
               "the same keys as before. What comes on top on the device is reading, of weights and of the "
               "cache, and no scheduler does that."),
        Option("e", "It can drop the order of arrival: urgent tasks decide.", "It *may* serve the urgent "
               "first, and without an order of admission that says so it does not. Pieces give it the "
               "occasion, not the rule."),
    ),
)  # fmt: skip

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
    prompt=f"A team halves its token budget, from {BUDGETS[0]} to {BUDGETS[1]}, so that chats wait less. "
    f"{N_RUNNING} requests run at any time, and their scheduler takes {VISIT_US} µs for each request in a "
    f"step; the device waits meanwhile. A step of the device took {LONG_MS} ms, now it takes {SHORT_MS} ms. "
    f"The time between tokens has fallen, as was hoped. But a prompt of {N_PROMPT:,} tokens takes longer, "
    "and the server does fewer tokens a second.\n\n"
    "Explain it, with numbers: how many steps the prompt takes before and after, what scheduling costs a "
    "step, what share of the time that is, and how much of the loss is scheduling's. Then say when this cost "
    "would not matter, and name two things that the team can do about it without raising the budget.",
    rubric=(
        (2, f"Steps: the chunk is what the decodes leave of the budget, so {STEPS[0]} steps become "
            f"{STEPS[1]}. (One point if the decodes are forgotten: 8 and 16.)"),
        (1, f"A step's scheduling is {N_RUNNING} × {VISIT_US} µs = {VISITS_MS:.2f} ms in both: it goes by "
            "requests, not by tokens."),
        (2, f"The share rises from {_share(LONG_MS):.1%} to {_share(SHORT_MS):.1%}: the same time, in a "
            "shorter step."),
        (2, "It says that scheduling is the smaller part of the loss, by comparing the two sums, and that "
            "the rest is on the device: each step reads all weights again, and the cached keys and values."),
        (1, "When it does not matter: long steps (a large model, long chunks, long contexts), few requests, "
            "or scheduling that is hidden behind the step before."),
        (2, "Two remedies out of: schedule the next step while this one runs; make a visit cheaper (no "
            "searching in lists, inputs kept and changed instead of built anew); let fewer requests run at "
            "once; CUDA graphs for what launching costs."),
    ),
    answer=f"With {N_RUNNING} decodes in each step the chunk gets {BUDGETS[0] - N_RUNNING} tokens of "
    f"{BUDGETS[0]}, and {BUDGETS[1] - N_RUNNING} of {BUDGETS[1]}. So the prompt takes {STEPS[0]} steps "
    f"before and {STEPS[1]} after.\n\n"
    f"Scheduling takes {N_RUNNING} × {VISIT_US} µs = {VISITS_MS:.2f} ms a step, whatever the budget. Of a "
    f"step of {LONG_MS} ms and its scheduling that is {_share(LONG_MS):.1%}; of one of {SHORT_MS} ms it is "
    f"{_share(SHORT_MS):.1%}. Over the whole prompt, scheduling rises from "
    f"{STEPS[0] * VISITS_MS:.0f} to {STEPS[1] * VISITS_MS:.0f} ms.\n\n"
    f"The device's part rises from {STEPS[0] * LONG_MS} to {STEPS[1] * SHORT_MS} ms. So of the "
    f"{STEPS[1] * (SHORT_MS + VISITS_MS) - STEPS[0] * (LONG_MS + VISITS_MS):.0f} ms that the prompt takes "
    f"longer, {(STEPS[1] - STEPS[0]) * VISITS_MS:.0f} ms are scheduling, and the others are weights and "
    "cached keys and values that are read again, and decodes that ride along in more steps.\n\n"
    "It would not matter if the steps were long, as on a model of 70 billion parameters, if few requests "
    "ran, or if the next step were scheduled while this one runs: the cost is far below the step, so it "
    "would be hidden. The team can switch that on; and it can make a visit cheaper, above all the building "
    "of inputs.",
    minutes=12,
    level="evaluate",
)  # fmt: skip

what_to_fix = Choice(
    id="what-to-fix",
    prompt="An engine on a small model: the device works for 4 ms of every 10 ms step. A profile of the "
    "processor, for a step with 48 requests:\n\n"
    "deciding 0.3 ms · taking blocks 0.1 ms · building inputs 3.6 ms · launching 1.2 ms · reading back and "
    "text 0.6 ms · books 0.2 ms.\n\n"
    "The inputs take as long with a chunk of 64 tokens as with one of 512, and twice as long when every "
    "request has twice the context. What do you do first?",
    options=(
        Option("a", "Write a faster policy.", "Deciding is 0.3 of 6 ms. If it took no time at all, the step "
               "would take 9.7 ms."),
        Option("b", "Raise the token budget.", "Longer chunks make the steps longer, so the share falls, and "
               "whoever decodes waits longer. The 3.6 ms stay: they do not depend on the chunk."),
        Option("c", "Keep the inputs from step to step, and only add what is new.", "They grow with the "
               "context: each step writes down again all blocks of all requests, of which one has changed. "
               "That is the largest part, and it need not be there.", True),
        Option("d", "Use CUDA graphs.", "They would take away most of the 1.2 ms of launching, where the "
               "steps are decodes alone. Worth doing, second."),
    ),
)  # fmt: skip

lost_graphs = Choice(
    id="lost-graphs",
    prompt="A small model serves 30 chats from full CUDA graphs, 1 ms a step. Then chunked prefilling is "
    "switched on, and a document comes. The steps take 4 ms, though a chunk of 64 tokens should add a tenth "
    "of a millisecond. What is the likely reason?",
    options=(
        Option("a", "The document's cache does not fit.", "Then somebody would be evicted and computed "
               "again. Nobody is, and the first step with a chunk is already slow."),
        Option("b", "Attention of the chunk over its prefix.", "It grows along the prompt. A reason for the "
               "last chunks, not for the first."),
        Option("c", "Steps with a chunk in them do not fit a graph that was recorded for decodes.", "The "
               "kernels are launched piece by piece again, and on a small model launching takes longer than "
               "running. On a large one the same loss would be hidden behind the kernels.", True),
    ),
)  # fmt: skip

when_hidden = Choice(
    id="when-hidden",
    prompt="An engine schedules the next step while this one runs. Scheduling takes 3 ms. For which steps is "
    "that cost not hidden?",
    options=(
        Option("a", "For steps of 2 ms.", "The device is done after 2 ms and waits for the third. Hiding "
               "ends where scheduling takes longer than the step.", True),
        Option("b", "For steps of 20 ms.", "There 17 ms are left over. The longer the step, the more fits "
               "behind it."),
        Option("c", "For none: what overlaps costs nothing.", "It costs nothing only as long as it fits. And "
               "on a machine where model and scheduler share the cores, it is not even then free."),
    ),
)  # fmt: skip

why_smaller_dear = Choice(
    id="why-smaller-dear",
    prompt="From chapter 5: below the saturation point, half the chunk means about twice the time for a "
    "whole prompt. What is read again and again?",
    options=(
        Option("a", "The weights: every pass reads all of them, however few its tokens.", "That is "
               "the larger part of what small chunks cost, and the device pays it. Scheduling comes on "
               "top.", True),
        Option("b", "The prompt: each chunk embeds the tokens before it once more.", "Their keys and values "
               "are in the cache. Nobody embeds a token twice."),
        Option("c", "The plan: the scheduler decides anew for every chunk.", "It does, and a decision takes "
               "microseconds where the weights take milliseconds."),
    ),
)  # fmt: skip

which_grows = Choice(
    id="which-grows",
    prompt="The same prompt, in chunks of 256 in place of 1,024. Nothing else changes. Which of these hardly "
    "grows?",
    options=(
        Option("a", "The visits of the prompt to the scheduler.", "Four times as many: one for each chunk."),
        Option("b", "The steps that hold a chunk beside decodes.", "Four times as many, too. Each of them "
               "loses a full CUDA graph, on an engine that has them."),
        Option("c", "The cost of deciding one step.", "It goes by the requests in the step, and there are as "
               "many as before. There are more steps; none of them is harder to decide.", True),
        Option("d", "The moments at which its cache is half-built.", "From three to fifteen. In one piece "
               "there "
               "was none."),
    ),
)  # fmt: skip
