"""From a request to pinned inputs: what fits together is queued exactly as it was read, and what does not is refused with the reason."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import ValidationError

from hub.registry.bases.base_models import BaseNotFound
from hub.registry.content.repo_visibility import MoreVisible
from hub.registry.datasets.examples import AmbiguousFile
from hub.registry.inspection.facts import NOT_PLAIN
from hub.registry.jobs.queueing import Input
from hub.registry.jobs.requests import common as requests
from hub.registry.jobs.requests.common import Request
from hub.registry.jobs.requests.train import UnknownTarget
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import FileNotInRepo, Forbidden, InvalidInput, RepoNotFound
from hub.registry.platform.services import Services
from hub.vocabulary import JobKind, QueueName, Visibility
from tests.conftest import Person
from tests.support.files import LAYERS, TINY, floats, peft_folder
from tests.support.published import adapter, base, dataset
from tests.support.requests import REQUESTS
from tests.support.trees import SOUND, config, plus


@dataclass(frozen=True)
class Stored:
    """A submission with its params as the database keeps them."""

    params: dict[str, Any]
    inputs: Sequence[Input]
    namespace: str
    visibility: Visibility
    kind: JobKind
    queue: QueueName


Resolve = Callable[..., Stored]


@pytest.fixture
def resolve(services: Services, ann: Person) -> Resolve:
    """Resolve a request, written as the JSON that a client would send, for Ann or somebody else."""

    def resolve(body: dict[str, Any], person: Person = ann) -> Stored:
        with transaction(services.sessions) as session:
            request: Request = REQUESTS.validate_python(body)
            made = request.resolve(session, person.viewer, request.pin_modules(session, person.viewer))
        params = made.params.model_dump(mode="json")
        return Stored(params, made.inputs, made.namespace, made.visibility, made.kind, made.queue)

    return resolve


def compose(*modules: Any, **more: Any) -> dict[str, Any]:
    chosen = [module if isinstance(module, dict) else {"repo": module} for module in modules]
    body = {"kind": "compose", "name": "ann/result", "modules": chosen, "examples": {"dataset": "ann/task"}}
    return {**body, **more}


def test_every_input_is_pinned_to_its_commit(services: Services, ann: Person, resolve: Resolve) -> None:
    """What is published between submitting and running changes nothing."""
    base(services)
    old = adapter(services, ann, "ann/a", seed=1)
    adapter(services, ann, "ann/a", seed=2)
    new = adapter(services, ann, "ann/b", seed=3)
    examples = dataset(services, ann, "ann/task")
    submission = resolve(compose({"repo": "ann/a", "revision": "v1"}, "ann/b"))
    assert [(m["repo"], m["commit"]) for m in submission.params["modules"]] == [("ann/a", old.id), ("ann/b", new.id)]
    assert submission.params["examples"] == {"repo": "ann/task", "commit": examples.id, "path": "train.jsonl"}
    assert submission.inputs == [Input(old.id, "module"), Input(new.id, "module"), Input(examples.id, "dataset")]
    adapter(services, ann, "ann/b", seed=4)
    assert resolve(compose("ann/b")).params["modules"][0]["commit"] != new.id
    assert json.loads(json.dumps(submission.params)) == submission.params


def test_the_base_is_the_one_on_which_the_modules_agree(services: Services, ann: Person, resolve: Resolve) -> None:
    base(services, "org/base", "org/base-4bit")
    adapter(services, ann, "ann/a", base="org/base")
    adapter(services, ann, "ann/b", base="org/base-4bit", seed=2)
    dataset(services, ann, "ann/task")
    found = resolve(compose("ann/a", "ann/b")).params["base"]
    assert found == {
        "id": "org/base",
        "path": "/models/tiny",
        "upstream": None,
        "revision": None,
        "dtype": "float32",
        "fingerprint": "f" * 64,
        "licence": "apache-2.0",
    }


def test_modules_of_two_bases_are_refused_naming_both(services: Services, ann: Person, resolve: Resolve) -> None:
    base(services, "org/one")
    base(services, "org/two")
    adapter(services, ann, "ann/a", base="org/one")
    adapter(services, ann, "ann/b", base="org/two")
    dataset(services, ann, "ann/task")
    with pytest.raises(requests.IncompatibleModules, match=r"ann/a is for org/one; ann/b is for org/two"):
        resolve(compose("ann/a", "ann/b"))
    # Whoever says which base to use has decided; the shapes must still fit.
    assert resolve(compose("ann/a", "ann/b", base="org/two")).params["base"]["id"] == "org/two"


def test_a_module_of_an_unknown_base_needs_the_base_to_be_named_or_registered(
    services: Services, ann: Person, resolve: Resolve
) -> None:
    adapter(services, ann, "ann/a", base="/home/me/base")
    dataset(services, ann, "ann/task")
    with pytest.raises(requests.IncompatibleModules, match="'/home/me/base', which is not registered"):
        resolve(compose("ann/a"))
    with pytest.raises(BaseNotFound, match="org/base"):
        resolve(compose("ann/a", base="org/base"))
    base(services, "org/base")
    assert resolve(compose("ann/a", base="org/base")).params["base"]["id"] == "org/base"
    base(services, "org/base", "/home/me/base")  # what the refusal advised
    assert resolve(compose("ann/a")).params["base"]["id"] == "org/base"


def test_layers_that_the_base_does_not_have_in_that_shape_are_refused(
    services: Services, ann: Person, resolve: Resolve
) -> None:
    base(services, "org/narrow", width=8)
    adapter(services, ann, "ann/wide", base="somewhere/else", width=16)
    other = config(SOUND, target_modules=["up_proj"])
    renamed = other["adapter_model.safetensors"].replace(b"self_attn.q_proj", b"__mlp__.up__proj")
    dataset(services, ann, "ann/task")
    with pytest.raises(requests.IncompatibleModules, match=r"of shape \[8, 8\], not \[16, 16\]"):
        resolve(compose("ann/wide", base="org/narrow"))
    other = config(other, target_modules=["up__proj"], base_model_name_or_path="somewhere/else")
    adapter(services, ann, "ann/elsewhere", files={**other, "adapter_model.safetensors": renamed})
    with pytest.raises(requests.IncompatibleModules, match="the base has no layer"):
        resolve(compose("ann/elsewhere", base="org/narrow"))


def test_the_product_form_needs_one_rank(services: Services, ann: Person, resolve: Resolve) -> None:
    base(services)
    adapter(services, ann, "ann/two", rank=2)
    adapter(services, ann, "ann/four", rank=4)
    adapter(services, ann, "ann/also-two", rank=2, seed=2)
    dataset(services, ann, "ann/task")
    with pytest.raises(requests.IncompatibleModules, match=r"ann/two has rank 2 at .* and ann/four has rank 4"):
        resolve(compose("ann/two", "ann/four", form="product"))
    assert resolve(compose("ann/two", "ann/also-two", form="product")).params["form"] == "product"
    assert resolve(compose("ann/two", "ann/four", form="sum")).params["form"] == "sum"


def test_two_versions_of_one_repo_are_two_modules_with_a_rank_each(
    services: Services, ann: Person, resolve: Resolve
) -> None:
    base(services)
    adapter(services, ann, "ann/a", rank=2)
    adapter(services, ann, "ann/a", rank=4)
    dataset(services, ann, "ann/task")
    both = ({"repo": "ann/a", "revision": "v1"}, {"repo": "ann/a", "revision": "v2"})
    assert len(resolve(compose(*both)).params["modules"]) == 2
    with pytest.raises(requests.IncompatibleModules, match=r"rank 2 at .* rank 4"):
        resolve(compose(*both, form="product"))


def test_candidates_are_the_plain_adapters_that_one_may_see(
    services: Services, ann: Person, bob: Person, resolve: Resolve
) -> None:
    base(services)
    base(services, "org/other")
    own = adapter(services, ann, "ann/a")
    adapter(services, ann, "ann/other-base", base="org/other")
    adapter(services, ann, "ann/no-base", base="nobody/knows")
    adapter(services, ann, "ann/odd", files=next(iter(ODD.values())))
    shared = adapter(services, bob, "bob/b", visibility="internal")
    adapter(services, bob, "bob/hidden", visibility="private")
    dataset(services, ann, "ann/task")
    found = resolve(compose(modules={"from": ["ann", "bob", "nobody"], "k": 1}, base=TINY))
    assert [pinned["commit"] for pinned in found.params["modules"]] == [own.id, shared.id]
    assert found.params["choose"] == 1, "which of the pool is for the worker to find out"
    drawn = resolve(compose(modules={"from": ["ann", "bob"], "k": 1, "by": "random"}, base=TINY))
    assert len(drawn.params["modules"]) == 1
    assert "choose" not in drawn.params
    pool = resolve(compose(modules={"from": ["ann", "bob"], "pool": 1}, base=TINY))
    assert len(pool.params["modules"]) == 1
    with pytest.raises(requests.IncompatibleModules, match="No adapter in nobody can take part"):
        resolve(compose(modules={"from": ["nobody"]}))


def test_a_result_is_no_more_visible_than_any_candidate(services: Services, ann: Person, resolve: Resolve) -> None:
    base(services)
    adapter(services, ann, "ann/a", visibility="public")
    adapter(services, ann, "ann/b", visibility="private", seed=2)
    dataset(services, ann, "ann/task", visibility="public")
    assert resolve(compose("ann/a", visibility="public")).visibility == "public"
    with pytest.raises(requests.WiderThanInputs, match="its input ann/b is private"):
        resolve(compose(modules={"from": ["ann"]}, visibility="public"))


def test_a_merge_has_weights_and_needs_no_examples(services: Services, ann: Person, resolve: Resolve) -> None:
    base(services)
    adapter(services, ann, "ann/two", rank=2)
    adapter(services, ann, "ann/four", rank=4)
    body = compose("ann/two", "ann/four", search="none", weights=[0.5, -1.0], form="svd", examples=None)
    found = resolve(body)
    assert found.params["weights"] == [0.5, -1.0]
    assert [item.role for item in found.inputs] == ["module", "module"]
    with pytest.raises(
        requests.IncompatibleModules, match="form ties adds the matrices themselves and needs equal ranks"
    ):
        resolve({**body, "form": "ties"})
    assert resolve({**body, "form": "ties_svd"}).params["form"] == "ties_svd"


def test_a_searched_composition_is_tuned_and_a_merge_is_not(services: Services, ann: Person, resolve: Resolve) -> None:
    base(services)
    adapter(services, ann, "ann/a")
    dataset(services, ann, "ann/task")
    found = resolve(compose("ann/a")).params
    assert (found["search"], found["budget"], found["tune"]) == ("gradient", 10, {"steps": 20, "learning_rate": 1e-3})
    by_name = resolve(compose("ann/a", search="nevergrad", tune=None)).params
    assert (by_name["budget"], by_name["tune"]) == (40, None)
    merge = compose("ann/a", search="none", weights=[1.0])
    assert resolve(merge).params["tune"] is None
    assert resolve({**merge, "tune": {"steps": 5}}).params["tune"]["steps"] == 5


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"search": "none"}, "search none needs a weight for each adapter: 1, not 0"),
        ({"search": "none", "weights": [1.0, 2.0]}, "a weight for each adapter: 1, not 2"),
        ({"search": "none", "weights": [1.0], "modules": {"from": ["ann"]}}, "given weights need given adapters"),
        ({"weights": [1.0]}, "a search finds the weights itself"),
        ({"form": "ties"}, "the form ties cannot be searched"),
        ({"examples": None}, "a search needs examples"),
        ({"examples": None, "search": "none", "weights": [1.0], "tune": {}}, "tuning needs examples"),
        ({"per_layer": True, "search": "nevergrad"}, "only search gradient finds weights by layer"),
        ({"optimizer": "CMA"}, "only search nevergrad has an optimizer"),
        ({"population": 4, "search": "gradient"}, "only search nevergrad evaluates a population"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        REQUESTS.validate_python(compose("ann/a", **changes))


def test_a_module_takes_part_once(services: Services, ann: Person, resolve: Resolve) -> None:
    base(services)
    adapter(services, ann, "ann/a")
    dataset(services, ann, "ann/task")
    with pytest.raises(requests.IncompatibleModules, match="ann/a is chosen twice"):
        resolve(compose("ann/a", {"repo": "ann/a", "revision": "v1"}))


MAGNITUDES = {f"{layer}.lora_magnitude_vector": ((8,), floats(8, 1)) for layer in LAYERS}
ODD = {
    "dora": plus(config(SOUND, use_dora=True), **MAGNITUDES),
    "pissa": config(SOUND, init_lora_weights="pissa"),
    "olora": config(SOUND, init_lora_weights="olora"),
}


@pytest.mark.parametrize("flag", ODD)
def test_what_is_more_than_a_sum_of_pairs_cannot_be_composed_but_can_be_asked(
    services: Services, ann: Person, resolve: Resolve, flag: str
) -> None:
    assert flag in NOT_PLAIN
    base(services)
    adapter(services, ann, "ann/odd", files=ODD[flag])
    adapter(services, ann, "ann/plain", seed=2)
    dataset(services, ann, "ann/task")
    with pytest.raises(requests.IncompatibleModules, match=f"ann/odd uses {flag}"):
        resolve(compose("ann/plain", "ann/odd"))
    assert resolve({"kind": "generate", "prompt": "hi", "module": {"repo": "ann/odd"}}).kind == "generate"


def templated(template: str, seed: int) -> dict[str, bytes]:
    return {**peft_folder(seed=seed), "loraloom.json": json.dumps({"template": template}).encode()}


def test_the_template_is_the_one_the_modules_were_made_with(services: Services, ann: Person, resolve: Resolve) -> None:
    base(services)
    adapter(services, ann, "ann/plain", files=templated("plain", 1))
    adapter(services, ann, "ann/plain-too", files=templated("plain", 2))
    adapter(services, ann, "ann/chat", files=templated("chat", 3))
    adapter(services, ann, "ann/silent", seed=4)
    dataset(services, ann, "ann/task")

    def template(*names: str, **more: Any) -> Any:
        return resolve(compose(*names, **more)).params["template"]

    assert template("ann/plain", "ann/plain-too") == "plain"
    assert template("ann/plain", "ann/silent") == "plain"
    assert template("ann/silent") == "chat"
    assert template("ann/plain", "ann/chat") == "chat"
    assert template("ann/chat", template="plain") == "plain"


def test_the_file_of_a_data_set_must_be_clear(services: Services, ann: Person, resolve: Resolve) -> None:
    base(services)
    adapter(services, ann, "ann/a")
    rows = b'{"input": "a", "target": "b"}\n'
    dataset(services, ann, "ann/two", {"train.jsonl": rows, "test.jsonl": rows, "README.md": b"Two files."})
    with pytest.raises(AmbiguousFile, match=r"2 .jsonl files \(test.jsonl, train.jsonl\)"):
        resolve(compose("ann/a", examples={"dataset": "ann/two"}))
    chosen = {"dataset": "ann/two", "path": "test.jsonl"}
    assert resolve(compose("ann/a", examples=chosen)).params["examples"]["path"] == "test.jsonl"
    with pytest.raises(FileNotInRepo, match=r"absent\.jsonl"):
        resolve(compose("ann/a", examples={"dataset": "ann/two", "path": "absent.jsonl"}))


def test_inputs_that_one_may_not_read_are_not_there(
    services: Services, ann: Person, bob: Person, resolve: Resolve
) -> None:
    base(services)
    adapter(services, bob, "bob/secret", visibility="private")
    adapter(services, ann, "ann/a")
    dataset(services, ann, "ann/task")
    dataset(services, bob, "bob/hidden", visibility="private")
    for body in (
        compose("bob/secret"),
        compose("ann/a", examples={"dataset": "bob/hidden"}),
        {"kind": "generate", "prompt": "hi", "module": {"repo": "bob/secret"}},
        {"kind": "evaluate", "modules": [{"repo": "bob/secret"}], "datasets": [{"dataset": "ann/task"}]},
    ):
        with pytest.raises(RepoNotFound):
            resolve(body)


def test_a_result_goes_only_where_its_owner_may_write(
    services: Services, ann: Person, bob: Person, resolve: Resolve
) -> None:
    base(services)
    adapter(services, ann, "ann/a")
    dataset(services, ann, "ann/task")
    with pytest.raises(Forbidden):
        resolve(compose("ann/a"), bob)
    assert resolve(compose("ann/a", name="bob/result"), bob).namespace == "bob"


def test_a_folder_without_an_adapter_is_no_module(services: Services, ann: Person, resolve: Resolve) -> None:
    base(services)
    adapter(services, ann, "ann/a")
    with pytest.raises(requests.NotAnAdapter, match="'checkpoints'"):
        resolve({"kind": "generate", "prompt": "hi", "module": {"repo": "ann/a", "folder": "checkpoints"}})


# Visibility


@pytest.mark.parametrize(
    ("module", "examples", "wanted", "given"),
    [
        ("public", "public", None, "internal"),
        ("public", "public", "public", "public"),
        ("internal", "public", None, "internal"),
        ("private", "public", None, "private"),
        ("public", "private", None, "private"),
        ("internal", "internal", "private", "private"),
    ],
)
def test_a_result_is_at_most_as_visible_as_its_least_visible_input(
    services: Services,
    ann: Person,
    resolve: Resolve,
    module: Visibility,
    examples: Visibility,
    wanted: str | None,
    given: str,
) -> None:
    base(services)
    adapter(services, ann, "ann/a", visibility=module)
    dataset(services, ann, "ann/task", visibility=examples)
    assert resolve(compose("ann/a", visibility=wanted)).visibility == given


def test_a_result_wider_than_an_input_is_refused_naming_the_input(
    services: Services, ann: Person, resolve: Resolve
) -> None:
    base(services)
    adapter(services, ann, "ann/a", visibility="public")
    dataset(services, ann, "ann/task", visibility="private")
    for wanted in ("internal", "public"):
        with pytest.raises(requests.WiderThanInputs, match="ann/task is private"):
            resolve(compose("ann/a", visibility=wanted))


def test_a_result_of_hidden_inputs_does_not_go_into_a_repo_that_more_can_see(
    services: Services, ann: Person, resolve: Resolve
) -> None:
    base(services)
    adapter(services, ann, "ann/a", visibility="private")
    adapter(services, ann, "ann/shown", visibility="internal")
    adapter(services, ann, "ann/hidden", visibility="private", seed=2)
    dataset(services, ann, "ann/task")
    with pytest.raises(MoreVisible, match="ann/shown is internal"):
        resolve(compose("ann/a", name="ann/shown"))
    assert resolve(compose("ann/a", name="ann/hidden")).visibility == "private"


# The other kinds


def test_an_evaluation_measures_modules_and_the_base_on_data_sets(
    services: Services, ann: Person, resolve: Resolve
) -> None:
    base(services)
    module = adapter(services, ann, "ann/a")
    task = dataset(services, ann, "ann/task")
    body = {"kind": "evaluate", "modules": [{"repo": "ann/a"}], "datasets": [{"dataset": "ann/task"}]}
    submission = resolve(body)
    assert (submission.kind, submission.queue, submission.visibility) == ("evaluate", "interactive", "private")
    assert submission.inputs == [Input(module.id, "module"), Input(task.id, "dataset")]
    assert submission.params["datasets"] == [{"repo": "ann/task", "commit": task.id, "path": "train.jsonl"}]
    alone = resolve({**body, "modules": [], "base": TINY})
    assert alone.params["modules"] == []
    with pytest.raises(InvalidInput, match="Name an adapter or a base"):
        resolve({**body, "modules": []})


def test_a_question_may_be_put_to_the_base_alone(services: Services, ann: Person, resolve: Resolve) -> None:
    base(services)
    alone = resolve({"kind": "generate", "prompt": "hi", "base": TINY})
    assert (alone.params["module"], alone.inputs, alone.namespace) == (None, [], "ann")
    with pytest.raises(InvalidInput, match="Name an adapter or a base"):
        resolve({"kind": "generate", "prompt": "hi"})


EXAMPLES = {"inline": [{"input": "a", "target": "b"}]}


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "dance"},
        compose(),
        compose("ann/a", examples={}),
        compose("ann/a", examples={**EXAMPLES, "dataset": "ann/task"}),
        compose("ann/a", examples={"inline": []}),
        compose("ann/a", examples={"inline": [{"input": "", "target": "b"}]}),
        compose("ann/a", examples={"inline": [{"input": "a"}]}),
        compose("ann/a", budget=0),
        compose("ann/a", bound=0),
        compose("ann/a", l1=-1),
        compose("ann/a", seed=2**32),
        compose("ann/a", form="svd3"),
        compose("ann/a", visibility="secret"),
        compose("ann/a", colour="blue"),
        compose("ann/a", bound=float("nan")),
        {"kind": "generate", "prompt": "", "base": TINY},
        {"kind": "generate", "prompt": "hi\0", "base": TINY},
        {"kind": "generate", "prompt": "\ud800", "base": TINY},
        compose("ann/a\0"),
        {"kind": "evaluate", "datasets": []},
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_read(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        REQUESTS.validate_python(body)


def training(**more: Any) -> dict[str, Any]:
    return {"kind": "train", "name": "ann/result", "base": TINY, "examples": {"dataset": "ann/task"}, **more}


def test_a_training_is_pinned_with_its_recipe(services: Services, ann: Person, resolve: Resolve) -> None:
    base(services)
    start = adapter(services, ann, "ann/a")
    examples = dataset(services, ann, "ann/task")
    submission = resolve(training(rank=4, early_stop=3, init="pissa"))
    assert submission.inputs == [Input(examples.id, "dataset")]
    recipe = submission.params["recipe"]
    assert (recipe["rank"], recipe["alpha"], recipe["patience"], recipe["target_modules"]) == (4, 8, 3, "all-linear")
    assert (submission.queue, submission.params["rates"]) == ("gpu", [])
    further = resolve(training(base=None, start_from={"repo": "ann/a"}))
    assert further.params["start"]["commit"] == start.id
    assert Input(start.id, "module") in further.inputs
    assert json.loads(json.dumps(further.params)) == further.params


def test_a_comparison_searches_rates_even_if_none_was_asked_for(
    services: Services, ann: Person, resolve: Resolve
) -> None:
    base(services)
    dataset(services, ann, "ann/task")
    assert resolve(training(compare=["lora"], learning_rate=1e-3)).params["rates"] == [2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3]
    search = {"rates": [1e-4, 2e-4], "steps": 7}
    asked = resolve(training(compare=["lora"], lr_search=search)).params
    assert (asked["rates"], asked["search_steps"]) == ([1e-4, 2e-4], 7)


def test_targets_that_the_base_does_not_have_are_refused_with_those_it_has(
    services: Services, ann: Person, resolve: Resolve
) -> None:
    base(services)
    dataset(services, ann, "ann/task")
    here = LAYERS[0].rpartition(".")[2]
    assert resolve(training(targets=[here])).params["recipe"]["target_modules"] == [here]
    with pytest.raises(UnknownTarget, match=rf"{TINY} has no linear layer named q_prj; it has .*{here}"):
        resolve(training(targets=[here, "q_prj"]))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"start_from": {"repo": "ann/a"}, "rank": 4, "init": "pissa"}, "decides rank, init; leave that out"),
        ({"dora": True, "init": "pissa"}, "choose one of them"),
        ({"load_in_4bit": True, "dora": True}, "leave them out, or load_in_4bit"),
        ({"steps": 5, "epochs": 2}, "steps or epochs"),
        ({"validation_share": 0, "early_stop": 2}, "early_stop is decided on validation examples"),
        ({"validation_share": 0, "compare": ["lora"]}, "compare is decided on validation examples"),
        ({"lr_search": {"rates": [1e-3, 2.0]}}, "every rate"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"init": "olora"}, "init"),
        ({"max_lenght": 5}, "max_lenght"),
    ],
)
def test_a_training_that_contradicts_itself_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        REQUESTS.validate_python(training(**fields))


def reduction(**more: Any) -> dict[str, Any]:
    return {"kind": "reduce", "name": "ann/result", "base": TINY, "examples": {"dataset": "ann/task"}, **more}


def test_a_reduction_is_pinned_with_its_settings(services: Services, ann: Person, resolve: Resolve) -> None:
    base(services)
    module = adapter(services, ann, "ann/a")
    examples = dataset(services, ann, "ann/task")
    submission = resolve(reduction(top=3))
    assert (submission.queue, submission.inputs) == ("gpu", [Input(examples.id, "dataset")])
    fields = ("subject", "form", "variant", "score", "top", "budget", "seed", "loss_budget")
    settings = {key: submission.params[key] for key in fields if key in submission.params}
    assert settings == {
        "subject": "base",
        "form": "adapter",
        "variant": "cl-100g-100e",
        "score": "tail_taylor",
        "top": 3,
        "budget": 10,
        "seed": 0,
    }
    assert json.loads(json.dumps(submission.params)) == submission.params
    smaller = resolve(reduction(base=None, subject="module", module={"repo": "ann/a"}))
    assert smaller.inputs == [Input(module.id, "module"), Input(examples.id, "dataset")]
    settings = {key: smaller.params[key] for key in fields if key in smaller.params}
    assert settings == {"subject": "module", "score": "fisher", "seed": 0, "loss_budget": 0.01}
    with pytest.raises(BaseNotFound):
        resolve(reduction(base="no/such"))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"score": "mass"}, "score"),
        ({"budget": 0}, "budget"),
        ({"variant": "cl"}, "variant"),
        ({"form": "factors", "module": {"repo": "ann/a"}}, "the factors hold only what was cut"),
        ({"shares": [0.5]}, "shares"),
        ({"subject": "module"}, "name the adapter that shall be smaller"),
        ({"subject": "module", "module": {"repo": "ann/a"}, "top": 3}, "top has no meaning for an adapter"),
        ({"loss_budget": 0.1}, "loss_budget has no meaning for a base"),
        ({"score": "fisher"}, "the score fisher is none for a base; choose tail_taylor, grad_sum, neg_count"),
        ({"subject": "module", "module": {"repo": "ann/a"}, "score": "neg_count"}, "none for an adapter"),
    ],
)
def test_a_reduction_that_contradicts_itself_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        REQUESTS.validate_python(reduction(**fields))
