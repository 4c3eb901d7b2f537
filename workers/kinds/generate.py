"""Job kind `generate`: one prompt, answered by the base alone and with an adapter. Nothing is published."""

from hub.lora.core.adapter import Adapter, applied
from hub.lora.core.examples import generate
from hub.registry.jobs.contracts.generate import Answers, GenerateParams, GenerateResult
from workers.runtime.work import BaseWork, Outcome


def run(work: BaseWork[GenerateParams]) -> Outcome[GenerateResult]:
    params = work.params
    adapters: list[Adapter | None] = [None, *([work.module(params.module)] if params.module else [])]
    answers = []
    for step, adapter in enumerate(adapters, 1):
        with applied(work.base.model, adapter):
            answers += generate(
                work.base, [params.prompt], params.template, max_new_tokens=params.max_new_tokens, batch_size=1
            )
        work.progress(step, len(adapters), {})
    base, with_adapter = (*answers, None)[:2]
    return Outcome(GenerateResult(answers=Answers(base=base, adapter=with_adapter), template=params.template))
