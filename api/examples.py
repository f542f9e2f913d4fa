"""The examples of the OpenAPI document: for each operation a request that works once the rows of `IDS` exist.

Answers have examples for fields whose type says too little. A name has the same meaning everywhere in the API, so there
is one example for each name.
"""

from __future__ import annotations

from typing import Any

from apispec import BasePlugin
from marshmallow import fields

from api.schemas.fields import Answer

MOMENT = "2026-11-22T09:30:00+00:00"
SCOPES = ["projects:read", "projects:write"]
TYPES = ["round.candidates_ready", "project.completed"]
FEATURES = ["fox ears", "blonde hair", "yellow eyes"]
SLIP = "gAAAAABpIYtg-the-slip-that-came-with-the-form"
# The things that requests are about.
IDS = {
    "project_id": "prj_06h09ddk6tkqqa7by0myrr1nrm",
    "round_id": "rnd_06h09ddk6tkqqa8r7b1kbw8we0",
    "image_id": "img_06h09ddk6tkqqcqt92q8qzrb1d",
    "job_id": "job_06h09ddk6tkqqdbdwgvngr0nhg",
    "lora_id": "lor_06h09ddk6tkqqgjcy5atphmjjh",
    "user_id": "usr_06h09ddk6tkqqyk7gzhvqb5zf9",
    "key_id": "key_06h09ddk6tkqrap9bfgnr5r3ke",
    "webhook_id": "whk_06h09ddk6tkqrf0a0wfs3s8rte",
    "delivery_id": "dlv_06h09ddk6tkqrw7qs4g5hrjwt3",
    "event_id": "evt_06h09ddk6tkqs0vbkrpvpcgjc2",
}

# A body for each operation that takes one. Files are given by name.
BODIES: dict[str, dict[str, Any]] = {
    "create_project": {
        "name": "fox girl",
        "trigger_word": "eiei21girl",
        "feature_tags": FEATURES,
        "base_model": "chibi",
        "metadata": {"asset": "npc-0042"},
    },
    "change_project": {"name": "fox girl, second try", "metadata": {"asset": "npc-0042"}},
    "upload_image": {"file": "fox.png", "view": "front", "framing": "full_body", "tags": "smile, sword"},
    "offer_upload": {"content_type": "image/png", "view": "front", "framing": "full_body", "tags": ["smile"]},
    "complete_upload": {"slip": SLIP},
    "import_dataset": {"file": "fox.zip"},
    "import_lora": {"file": "fox.safetensors", "trigger_word": "eiei21girl"},
    "export_dataset": {"round": 1},
    "crop_image": {"mode": "auto"},
    "change_image": {"decision": "accepted", "tags": [*FEATURES, "smile"]},
    "put_back_image": {"file": "fox-edited.png"},
    "decide_candidates": {"accepted": [IDS["image_id"]], "rejected": []},
    "ask_for_candidates": {"count": 8, "views": ["behind", "side"]},
    "finish_round": {"accept_fewer": True},
    "add_round": {"kind": "character", "train": {"train_steps": 320}},
    "generate_pictures": {
        "pictures": [{"prompt": "eiei21girl, 1girl, solo, from behind, full body", "seed": 7, "count": 4}],
        "loras": [{"lora_id": IDS["lora_id"], "weight": 1.0}],
    },
    "create_webhook": {"url": "https://studio.example/hooks/bootlora", "event_types": TYPES},
    "change_webhook": {"enabled": True},
    "rotate_webhook_secret": {"overlap_seconds": 3600},
    "recover_webhook": {"since": MOMENT},
    "create_key": {"name": "asset pipeline"},
    "create_user": {"name": "grace", "role": "member"},
    "change_user": {"max_running_jobs": 4},
    "create_user_key": {"name": "asset pipeline", "scopes": SCOPES},
}

# Examples of path parameters and of fields of answers.
FIELDS: dict[str, Any] = IDS | {
    "number": 1,
    "next_cursor": None,
    "name": "fox girl",
    "trigger_word": "eiei21girl",
    "subject_tags": ["1girl", "solo"],
    "feature_tags": FEATURES,
    "base_model": "chibi",
    "metadata": {"asset": "npc-0042"},
    "captions": ["eiei21girl, 1girl, solo, fox ears, blonde hair, yellow eyes, from side"],
    "prompt_tags": ["cel shading"],
    "framings": {"full_body": 2, "upper_body": 1},
    "tags": [*FEATURES, "smile"],
    "view": "side",
    "framing": "full_body",
    "box": [0, 0, 512, 512],
    "prompt": "eiei21girl, 1girl, solo, fox ears, blonde hair, yellow eyes, from side",
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "slip": SLIP,
    "params": {"inference_steps": 12, "guidance_scale": 3.0},
    "progress": {"stage": "generating", "step": 3, "total_steps": 24},
    "metrics": {"loss": 0.041},
    "filename": "eiei21girl-1-style.safetensors",
    "event_type": "round.candidates_ready",
    "event_types": TYPES,
    "data": {"project_id": IDS["project_id"], "seq": 12, "candidates": 24, "target": 16},
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "scopes": SCOPES,
    "action": "create_project",
    "family": "chibi",
    "license": "Apache-2.0",
}


class Examples(BasePlugin):
    """Writes the examples of parameters and bodies into the document."""

    def path_helper(  # type: ignore[override]
        self, *, operations: dict[str, Any], parameters: list[dict[str, Any]], **_: Any
    ) -> None:
        for parameter in parameters:
            if parameter["name"] in FIELDS:
                parameter["example"] = FIELDS[parameter["name"]]
        for operation in operations.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                if operation["operationId"] in BODIES:
                    content["example"] = BODIES[operation["operationId"]]


def of_field(_: Any, field: fields.Field, ret: dict[str, Any]) -> dict[str, Any]:
    """For apispec: the example of a field of an answer."""
    if not isinstance(field.parent, Answer) or "example" in ret:
        return {}
    name = field.data_key or field.name
    noun = type(field.parent).__name__.removesuffix("Schema").removeprefix("Fresh")
    name = f"{noun.lower()}_id" if name == "id" else name
    return {"example": FIELDS[name]} if name in FIELDS else {}
