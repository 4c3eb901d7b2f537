"""The words that everything else uses: kinds, states, metrics, names and their patterns, each written down here alone.

Values are plain text in `Literal`s and not enum members, as they are stored, sent and read as text (decision 0012). A tuple beside a
`Literal` has its values in order, for code that lists them.
"""

import re
from dataclasses import dataclass
from typing import Literal, get_args

# --- who may do what --------------------------------------------------------------------------------------------------

Role = Literal["read", "write", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)  # each may do what those before it may

Scope = Literal["read", "write", "jobs", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

NamespaceKind = Literal["user", "organization"]

Visibility = Literal["private", "internal", "public"]
VISIBILITIES: tuple[Visibility, ...] = get_args(Visibility)  # from least to most visible


def is_wider(visibility: Visibility, than: Visibility) -> bool:
    """Whether more people see what has the first visibility than what has the second."""
    return VISIBILITIES.index(visibility) > VISIBILITIES.index(than)


def narrowest(*visibilities: Visibility) -> Visibility:
    return min(visibilities, key=VISIBILITIES.index)


# --- repos ------------------------------------------------------------------------------------------------------------

RepoType = Literal["model", "dataset"]
REPO_TYPES: tuple[RepoType, ...] = get_args(RepoType)

RefKind = Literal["branch", "tag", "version", "alias"]
AliasAction = Literal["move", "rollback", "gate", "ungate", "remove"]
BlobState = Literal["receiving", "stored", "deleting"]
Severity = Literal["error", "warning", "info"]

MAIN = "main"
COMMIT_ID = re.compile(r"[0-9a-f]{40}")
GIT_OID = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")

# Names that every Hugging Face client accepts as a part of a repo id.
NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")
VERSION_SUFFIX = re.compile(r"\.v\d+$")  # team/name.v3 is how clients without a revision argument pin a version


@dataclass(frozen=True)
class RepoName:
    """A repo's name in full. `str()` gives "namespace/name"."""

    namespace: str
    name: str

    @classmethod
    def parse(cls, text: str) -> "RepoName | None":
        """None where the text has no slash, or more than one."""
        namespace, slash, name = text.partition("/")
        return cls(namespace, name) if slash and "/" not in name else None

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


# --- examples and measurements ----------------------------------------------------------------------------------------

Template = Literal["chat", "plain"]
TEMPLATES: tuple[Template, ...] = get_args(Template)

System = Literal[1, 2]  # fast and slow thinking (LoRA-PAR)

Metric = Literal["exact_match", "contains", "numeric", "choice", "target_loss"]
METRICS: tuple[Metric, ...] = get_args(Metric)

# Held-out examples below which no claim is made: at 100, a share near one half is known to about +-0.1.
ENOUGH_EXAMPLES = 100

# --- jobs -------------------------------------------------------------------------------------------------------------

JobKind = Literal["compose", "train", "par", "reduce", "evaluate", "convert", "generate"]
JOB_KINDS: tuple[JobKind, ...] = get_args(JobKind)

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
JOB_STATES: tuple[JobState, ...] = get_args(JobState)
FINISHED: tuple[JobState, ...] = ("succeeded", "failed", "cancelled")

QueueName = Literal["gpu", "interactive"]
QUEUES: tuple[QueueName, ...] = get_args(QueueName)

InputRole = Literal["module", "base", "dataset"]

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

# --- composition (LoraHub) --------------------------------------------------------------------------------------------

Form = Literal["sum", "product", "svd"]
FORMS: tuple[Form, ...] = get_args(Form)

Merge = Literal[
    "linear",
    "ties",
    "ties_svd",
    "dare_linear",
    "dare_linear_svd",
    "dare_ties",
    "dare_ties_svd",
    "magnitude_prune",
    "magnitude_prune_svd",
]
MERGES: tuple[Merge, ...] = get_args(Merge)

SearchMethod = Literal["nevergrad", "gradient", "none"]
Controls = Literal["quick", "full"]  # how many controls a report has beside a composition

ComposeArm = Literal[
    "base",
    "five_shot",
    "best_single",
    "average",
    "random_weights",
    "random_modules",
    "fresh_lora",
    "best_single_tuned",
    "untuned",
    "composition",
]

# --- training (LoRA+) -------------------------------------------------------------------------------------------------

Init = Literal["default", "gaussian", "a_zero", "orthogonal", "pissa", "pissa_niter_4"]
INITS: tuple[Init, ...] = get_args(Init)

Schedule = Literal["linear", "cosine", "constant"]

Ending = Literal["finished", "stopped_early", "diverged"]

# --- fast and slow thinking (LoRA-PAR) --------------------------------------------------------------------------------

ParControl = Literal["lora", "loraplus", "unpartitioned", "pissa_rl", "random", "swapped", "rl_first"]
ParArm = Literal["par"] | ParControl
PAR_ARMS: tuple[ParArm, ...] = ("par", *get_args(ParControl))

SplitBy = Literal["labels", "random", "vote"]  # how examples are divided into the two systems

PartitionStart = Literal["pissa", "probe"]

Reward = Literal["exact_match", "numeric_match", "integer", "strict_format", "soft_format", "tags", "length"]
REWARDS: tuple[Reward, ...] = get_args(Reward)

GrpoLoss = Literal["dapo", "grpo", "dr_grpo", "bnpo"]

# --- reduction (Compress to Impress) ----------------------------------------------------------------------------------

Subject = Literal["base", "module"]

CutScore = Literal["tail_taylor", "grad_sum", "neg_count"]  # of a singular value of a base's matrix
CUT_SCORES: tuple[CutScore, ...] = get_args(CutScore)

ComponentScore = Literal["fisher", "tail_taylor", "energy"]  # of a component of an adapter's update
COMPONENT_SCORES: tuple[ComponentScore, ...] = get_args(ComponentScore)

VariantName = Literal["laser", "100g-std", "100g-100e", "cl-100g-100e", "subspace-100g-100e"]
Grouping = Literal["contiguous", "subspace"]
ReducedForm = Literal["adapter", "model", "factors"]

# --- conversion -------------------------------------------------------------------------------------------------------

Style = Literal["peft", "loralib", "mlx", "kohya", "diffusers"]  # which tool wrote an adapter's files
