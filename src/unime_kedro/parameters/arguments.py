"""Which arguments of transformers.TrainingArguments ``arguments`` of a training does not take, and why."""

from __future__ import annotations

#: arguments of transformers.TrainingArguments that would break what is promised, and why; ``{section}`` is the
#: parameters' own
REFUSED_ARGUMENTS = {
    "accelerator_config": "gradients are scaled here",
    "auto_find_batch_size": "the batch decides what is learned; lower {section}.chunk instead",
    "deepspeed": "its engine takes every chunk of the gradient cache for a step",
    "fsdp": "it waits for equal numbers of passes in all processes, which equal items encoded once do not give",
    "fsdp_config": "see fsdp",
    "ignore_data_skip": "a training that goes on would see other queries",
    "load_best_model_at_end": "the model after the last step is the result",
    "parallelism_config": "it divides what the gradient cache expects whole",
    "save_only_model": "a training could not go on exactly",
    "save_strategy": "checkpoints are written every {section}.checkpoint_every steps",
    "save_total_limit": "with one, a kill while it is written would leave none",
    "train_sampling_strategy": "the order of queries depends on {section}.seed alone",
    "torch_compile": "batches have changing shapes",
}
#: arguments of transformers.TrainingArguments that other keys decide
OWN_ARGUMENTS = {
    "bf16": "dtype",
    "dataloader_drop_last": "batch",
    "dataloader_num_workers": "image_workers",
    "fp16": "dtype",
    "gradient_accumulation_steps": "batch and chunk",
    "gradient_checkpointing": "chunk",
    "learning_rate": "learning_rate",
    "logging_steps": "log_every",
    "lr_scheduler_type": "schedule",
    "max_grad_norm": "max_gradient_norm",
    "max_steps": "steps",
    "num_train_epochs": "steps",
    "output_dir": None,
    "per_device_train_batch_size": "batch",
    "report_to": None,
    "resume_from_checkpoint": "resume_from",
    "save_steps": "checkpoint_every",
    "seed": "seed",
    "data_seed": "seed",
    "use_cpu": "device",
    "warmup_steps": "warmup_steps",
    "warmup_ratio": "warmup_steps",
    "weight_decay": "weight_decay",
}
