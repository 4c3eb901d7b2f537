"""The form of each kind of job, and where a kind without one is started instead."""

from collections.abc import Mapping

from hub.registry.jobs.contracts.par import PartitionSettings, ReinforcedSettings, SupervisedSettings
from hub.registry.jobs.requests.train import GIVEN_BY_START
from hub.vocabulary import REWARDS, JobKind
from hub.web.pages.jobs.forms.controls import Base, Modules, ModulesOrNamespaces, OneModule, ResultName, Subject, Switch
from hub.web.pages.jobs.forms.form import FieldGroup, JobForm
from hub.web.pages.jobs.forms.sources import DataSets, HeldOut, Source, Split

# By the field; "no" and the field is what the choice of nothing is called.
LABELS: Mapping[str, str] = {
    "search": "Search",
    "budget": "Budget",
    "l1": "Penalty on weights",
    "tune.steps": "Tuning steps",
    "tune.learning_rate": "Tuning rate",
    "targets": "Layers",
    "sft.target_modules": "Layers",
    "init": "Start of A and B",
    "rslora": "rsLoRA",
    "dora": "DoRA",
    "ratio": "LoRA+ ratio",
    "settings": "Named settings",
    "compare": "Compare with",
    "accumulation": "Batches per update",
    "max_length": "Longest example",
    "validate_every": "Validate every",
    "load_in_4bit": "Base in four bits",
    "lr_search.rates": "Rates to try",
    "lr_search.steps": "Steps of each try",
    "kl": "KL weight",
    "grpo.kl": "KL weight",
    "top": "Matrices tried",
    "loss_budget": "Loss budget",
    "limit": "Examples of each",
    "max_new_tokens": "Longest answer",
    "include_base": "The base too",
    "time_limit_minutes": "Time limit, minutes",
    "source.repo": "Repository",
    "enable_lora": "Trained lanes",
    "no visibility": "as its inputs",
    "no template": "as its adapters",
    # What words among the choices are called.
    "=lora": "plain LoRA",
    "=loraplus": "LoRA+",
    "=pissa_rl": "PiSSA, then RL",
    "=rl_first": "RL first",
    "=a_zero": "A at zero",
    "=pissa": "PiSSA",
    "=pissa_niter_4": "PiSSA, fast",
    "=nevergrad": "nevergrad, without gradients",
}

LAST = FieldGroup("Seed, template and time limit", ("seed", "template", "time_limit_minutes"))

COMPOSE = JobForm(
    kind="compose",
    lead="Finds how much of each adapter to take, from a handful of examples of a new task.",
    controls=(Base(), ModulesOrNamespaces(), Source("examples"), HeldOut(), ResultName()),
    fields=(
        *("search", "form", "budget"),
        Switch(
            name="tune",
            input="tuning",
            label="Tuning",
            hint="A short training on the same examples, from what the search found.",
            default="yes",
            no="no, the composition alone",
        ),
        "visibility",
    ),
    groups=(
        FieldGroup("Search in detail", ("optimizer", "population", "per_layer", "patience", "seconds", "bound", "l1")),
        FieldGroup("Form in detail", ("rank", "density", "weights")),
        FieldGroup("Tuning and report", ("tune.steps", "tune.learning_rate", "controls")),
        LAST,
    ),
    base_hint="Adapters can only be added up on one base.",
    refreshed_by="form",
)

TRAIN = JobForm(
    kind="train",
    lead="Learns an adapter from examples with LoRA+: B learns faster than A.",
    controls=(
        Base(unless_modules=True),
        OneModule("start_from", decides=GIVEN_BY_START),
        Source("examples"),
        HeldOut(),
        ResultName(),
    ),
    fields=(
        *("rank", "learning_rate", "epochs", "visibility", "compare"),
        Switch(
            name="lr_search",
            input="search_rate",
            label="Search the rate",
            hint="Short runs at several learning rates first; the one with the least validation loss is taken.",
            default="no",
        ),
    ),
    groups=(
        FieldGroup("Adapter", ("alpha", "targets", "init", "dropout", "rslora", "dora")),
        FieldGroup(
            "Training",
            (
                *("ratio", "steps", "batch_size", "accumulation", "warmup", "schedule", "weight_decay"),
                *("max_length", "load_in_4bit"),
            ),
        ),
        FieldGroup(
            "Validation", ("validation_share", "validate_every", "early_stop", "lr_search.rates", "lr_search.steps")
        ),
        LAST,
    ),
    links={"from": "module"},
)

PAR = JobForm(
    kind="par",
    lead="Learns fast and slow thinking in parts of one adapter: System 1 from examples, System 2 by reinforcement.",
    controls=(Base(), Source("examples"), HeldOut(), Split(), ResultName()),
    fields=("settings", "measure", "visibility", "compare"),
    groups=(
        FieldGroup("Partition", tuple(f"partition.{name}" for name in PartitionSettings.model_fields)),
        FieldGroup("Stage 1, supervised", tuple(f"sft.{name}" for name in SupervisedSettings.model_fields)),
        FieldGroup(
            "Stage 2, reinforced",
            tuple(f"grpo.{name}" for name in ReinforcedSettings.model_fields if name != "rewards"),
        ),
        FieldGroup(
            "Validation, seed, template and time limit",
            ("validation_share", *LAST.names),
        ),
        FieldGroup(
            "Rewards",
            tuple(f"grpo.rewards.{name}" for name in REWARDS),
            hint="The weight of each reward in stage 2; without any, the named settings' own.",
        ),
    ),
)

REDUCE = JobForm(
    kind="reduce",
    lead="Cuts what a task does not need: a base gets better at it, or an adapter gets smaller.",
    controls=(Base(), OneModule("module"), Source("examples"), HeldOut(), ResultName(), Subject()),
    fields=("form", "loss_budget", "visibility"),
    groups=(
        FieldGroup("Cuts of a base", ("variant", "top", "budget")),
        FieldGroup("Score, seed, template and time limit", ("score", *LAST.names)),
    ),
)

EVALUATE = JobForm(
    kind="evaluate",
    lead="Measures adapters on data sets. The figures stay with the adapters and are shown in Scores.",
    controls=(Base(unless_modules=True), Modules(), Source("examples"), DataSets()),
    fields=("metrics", "limit", "max_new_tokens", "include_base"),
    groups=(LAST,),
    base_hint="Adapters of one base are measured together.",
)

CONVERT = JobForm(
    kind="convert",
    lead="Writes weights that PEFT cannot load, or that are a pickle, as a PEFT adapter that computes the same.",
    controls=(ResultName(),),
    inputs=("source.repo", "source.revision", "source.folder", "source.file"),
    fields=("base", "alpha", "enable_lora", "component", "visibility"),
    groups=(FieldGroup("Time limit", ("time_limit_minutes",)),),
    links={"module": "source.repo"},
    needs_base=False,
)

FORMS: Mapping[JobKind, JobForm] = {form.kind: form for form in (COMPOSE, TRAIN, PAR, REDUCE, EVALUATE, CONVERT)}

# Kinds without a form: where one starts them. A template of `new/` by the kind's name explains it.
STARTED_ELSEWHERE: Mapping[JobKind, str] = {"generate": "on the page Try of an adapter"}
