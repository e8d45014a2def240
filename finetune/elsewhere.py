"""What other trainers (transformers, peft, trl, axolotl, Unsloth, LLaMA-Factory, torchtune, litgpt) call the options.

An unknown option of one of these names is answered with the option's name here; what has none, with why. docs/moving.md
shows the same table.
"""

ELSEWHERE = {  # the option here, perhaps with a remark behind a comma; or a clause -> names elsewhere
    "learning_rate": "lr peak_lr max_lr",
    "rank": "r lora_r lora_rank",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "targets": "target_modules lora_target lora_target_modules lora_attn_modules",
    "rslora": "use_rslora",
    "epochs": "num_train_epochs num_epochs n_epochs",
    "batch_size": "per_device_train_batch_size train_batch_size global_batch_size",
    "schedule": "lr_scheduler lr_scheduler_type",
    "warmup, a share of all steps": "warmup_ratio warmup_steps lr_warmup_steps num_warmup_steps",
    "clip": "max_grad_norm clip_grad_norm gradient_clip_val",
    "max_tokens": "max_seq_length max_seq_len max_length sequence_len cutoff_len",
    "model": "model_name_or_path base_model model_name model_id checkpoint_dir",
    "data": "train_file dataset datasets dataset_name dataset_path data_path train_data",
    "out": "output_dir out_dir output",
    "validation, a share of the posts": "val_size val_set_size val_split validation_split test_size",
    "validation_data": "validation_file eval_file val_file eval_data eval_dataset validation_dataset test_datasets",
    "patience": "early_stopping_patience early_stopping_rounds",
    "eval_every": "eval_steps eval_strategy evaluation_strategy eval_interval",
    "save_every": "save_steps save_strategy save_interval",
    "quantize, nf4 for 4 bits": "load_in_4bit load_in_8bit quantization_bit quantization bnb_4bit_quant_type",
    "dtype": "bf16 fp16 tf32 precision torch_dtype",
    "checkpointing": "gradient_checkpointing use_gradient_checkpointing enable_activation_checkpointing",
    "resume, with the run's folder in --out": "resume_from_checkpoint auto_resume_from_checkpoints",
    "seed": "random_state random_seed",
    "codebook, which has the labels": "num_labels num_classes label_names id2label",
    "--batch-size posts are a step, cut into pieces that fit into memory, whose gradients add up":
        "gradient_accumulation_steps gradient_accumulation gradient_accumulation_iters micro_batch_size",
    "posts are always packed, without padding": "packing sample_packing dataset_packed",
    "plain LoRA and --rslora are what there is": "use_dora dora loraplus_lr_ratio init_lora_weights modules_to_save",
    "the optimiser is AdamW": "optim optimizer",
    "log.jsonl in the run's folder has every step": "report_to logging_steps logging_dir wandb_project use_wandb",
    "python -m tools.memory says what a model takes": "dry_run memory_estimate",
    "python -m tools.export merges and exports a run": "push_to_hub hub_model_id merge_lora merge_adapter",
    "torchrun starts a process for each card": "deepspeed fsdp num_gpus devices",
}  # fmt: skip
