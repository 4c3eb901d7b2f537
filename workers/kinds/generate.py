"""Job kind `generate`: one prompt, answered by the base alone and with an adapter. Nothing is published."""

from hub.lora.core.adapter import Adapter, applied
from hub.lora.core.examples import generate
from workers.runtime.work import Outcome, Work


def run(work: Work) -> Outcome:
    params = work.params
    arms: dict[str, Adapter | None] = {"base": None}
    if params["module"]:
        arms["adapter"] = work.module(params["module"])
    answers = {}
    for step, (name, adapter) in enumerate(arms.items()):
        with applied(work.base.model, adapter):
            (answers[name],) = generate(
                work.base, [params["prompt"]], params["template"], max_new_tokens=params["max_new_tokens"], batch_size=1
            )
        work.progress(step + 1, len(arms), {})
    return Outcome(result={"answers": answers, "template": params["template"]})
