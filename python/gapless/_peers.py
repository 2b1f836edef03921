"""What PaddleClas, PyTorch, timm, Keras and YOLOv5 call things that a recipe has, so that an error can say
it.

Keys are compared in lower case without ``_``, ``-`` and spaces. A value says where the thing lives here.
"""

from __future__ import annotations

__all__ = ["key_hint", "name_hint", "nearest"]

import difflib
from collections.abc import Iterable

# key as a peer writes it -> (who writes it so, what to do here)
_KEYS: dict[str, tuple[str, str]] = {
    # learning rate and schedule
    "learning_rate": ("PaddleClas, Keras", "optimizer.lr"),
    "base_lr": ("timm --lr-base", "optimizer.lr (and scale_lr: true to scale it with the batch)"),
    "lr": ("timm, PyTorch", "optimizer.lr"),
    "lr0": ("YOLOv5", "optimizer.lr"),
    "lrf": ("YOLOv5", "schedule: {name: Linear, end_factor: LRF}"),
    "lr_scheduler": ("PyTorch, torchvision", "schedule"),
    "scheduler": ("PyTorch", "schedule"),
    "sched": ("timm", "schedule.name"),
    "cos_lr": ("YOLOv5", "schedule: Cosine"),
    "warmup_epochs": ("timm, YOLOv5", "schedule.warmup_epochs"),
    "warmup_epoch": ("PaddleClas", "schedule.warmup_epochs"),
    "warmup_steps": ("Keras", "schedule.warmup_steps"),
    "warmup_lr": ("timm", "schedule.warmup_start"),
    "warmup_start_lr": ("PaddleClas", "schedule.warmup_start"),
    "warmup_prefix": ("timm", "the default; timm without it is schedule.inside: true"),
    "min_lr": ("timm", "schedule.final of Cosine, schedule.min_lr of ReduceOnPlateau"),
    "eta_min": ("PyTorch", "schedule.final"),
    "t_max": ("PyTorch", "not needed: the schedule spans the run (epochs)"),
    "decay_epochs": ("PaddleClas, timm", "schedule.milestones_epochs (MultiStep) or step_size_epochs (Step)"),
    "by_epoch": ("PaddleClas", "schedule.by_epoch"),
    "lr_noise": ("timm", "not there; schedule: {name: Lambda, values: […]} can hold any rates"),
    # optimizer
    "opt": ("timm", "optimizer.name"),
    "momentum": ("timm, YOLOv5", "optimizer.momentum"),
    "nesterov": ("PyTorch", "optimizer.nesterov"),
    "weight_decay": ("PyTorch, timm, YOLOv5", "optimizer.weight_decay"),
    "wd": ("fastai", "optimizer.weight_decay"),
    "regularizer": ("PaddleClas", "optimizer.weight_decay"),
    "coeff": ("PaddleClas", "optimizer.weight_decay"),
    "epsilon": ("Keras, Paddle", "optimizer.eps; for smoothed labels loss.label_smoothing"),
    "beta_1": ("Keras", "optimizer.beta1"),
    "beta_2": ("Keras", "optimizer.beta2"),
    "betas": ("PyTorch", "optimizer.beta1 and optimizer.beta2"),
    "rho": ("Keras", "optimizer.alpha of RMSprop"),
    "one_dim_param_no_weight_decay": ("PaddleClas", "decay_norm_and_bias: false"),
    "no_weight_decay_name": ("PaddleClas", "decay_norm_and_bias: false"),
    "clip_grad": ("timm", "clip_norm"),
    "clipnorm": ("Keras", "clip_norm"),
    "grad_clip": ("PyTorch", "clip_norm"),
    "max_grad_norm": ("PyTorch", "clip_norm"),
    "update_freq": ("PaddleClas", "not there yet: give the batch_size that you mean"),
    "accumulate": ("YOLOv5", "not there yet: give the batch_size that you mean"),
    "grad_accum_steps": ("timm", "not there yet: give the batch_size that you mean"),
    # data
    "data_path": ("torchvision", "data: {folder: PATH}"),
    "data_dir": ("timm", "data: {folder: PATH}"),
    "image_root": ("PaddleClas", "data: {list: FILE, root: PATH}, or data: {folder: PATH}"),
    "cls_label_path": ("PaddleClas", "data: {list: FILE}"),
    "dataset": ("PaddleClas, timm", "data"),
    "dataloader": ("PaddleClas", "data, train, eval and batch_size"),
    "train_dir": ("timm", "data: {folder: PATH} whose sub-folders train/ and val/ are the splits"),
    "validation_split": ("Keras", "data.split"),
    "validation_data": ("Keras", "data, which names its splits"),
    "val_split": ("timm", "data.split"),
    "class_num": ("PaddleClas", "model.num_classes (filled in from the data)"),
    "num_classes": ("timm, torchvision", "model.num_classes (filled in from the data)"),
    "classes": ("Keras", "model.num_classes (filled in from the data)"),
    "nc": ("YOLOv5", "model.num_classes (filled in from the data)"),
    "image_shape": ("PaddleClas", "image_size"),
    "input_shape": ("Keras", "image_size"),
    "input_size": ("timm", "image_size"),
    "img_size": ("timm", "image_size"),
    "imgsz": ("YOLOv5", "image_size"),
    "img": ("YOLOv5", "image_size"),
    "target_size": ("Keras", "image_size"),
    "train_crop_size": ("torchvision", "image_size"),
    "val_resize_size": ("torchvision", "eval: [Resize: SIZE, CenterCrop: SIZE]"),
    "crop_pct": ("timm", "eval: [Resize: round(image_size / crop_pct), CenterCrop: image_size]"),
    "interpolation": ("timm, torchvision", "interpolation of Resize and RandomResizedCrop in train and eval"),
    "mean": ("timm", "Normalize.mean, the last op of train and eval"),
    "std": ("timm", "Normalize.std, the last op of train and eval"),
    "hflip": ("timm", "RandomHorizontalFlip: {p: P} in train"),
    "fliplr": ("YOLOv5", "RandomHorizontalFlip: {p: P} in train"),
    "scale": ("timm", "RandomResizedCrop.scale in train"),
    "ratio": ("timm", "RandomResizedCrop.ratio in train"),
    "transform_ops": ("PaddleClas", "train and eval"),
    "batch_transform_ops": ("PaddleClas", "mix"),
    "transforms": ("PyTorch", "train and eval"),
    "transform": ("PyTorch", "train and eval"),
    "augment": ("YOLOv5", "train"),
    "mixup": ("timm, YOLOv5", "mix"),
    "cutmix": ("timm", "mix"),
    "bs": ("fastai", "batch_size"),
    "batch": ("YOLOv5", "batch_size"),
    "batchsize": ("YOLOv5", "batch_size"),
    "train_batch_size": ("Hugging Face", "batch_size"),
    "sampler": ("PaddleClas", "batch_size and drop_last"),
    "shuffle": ("PyTorch, Keras", "always on in training, decided by seed; never in evaluation"),
    "num_workers": ("PyTorch, PaddleClas", "not needed: decoding uses the run's threads (--threads N)"),
    "workers": ("YOLOv5, timm", "not needed: decoding uses the run's threads (--threads N)"),
    "use_shared_memory": ("PaddleClas", "not needed: decoding uses threads of this process"),
    "pin_memory": ("PyTorch", "not needed: gapless runs on the CPU"),
    "cache": ("YOLOv5", "not needed: decoded images are kept when they fit in memory"),
    # model and weights
    "arch": ("PaddleClas, torchvision", "model"),
    "backbone": ("PaddleClas", "model.name"),
    "net": ("PyTorch", "model"),
    "pretrained_model": ("PaddleClas", "pretrained: FILE.safetensors (to continue a run: --resume RUN)"),
    "weights": ("YOLOv5, Keras, torchvision", "pretrained: FILE.safetensors"),
    "initial_checkpoint": ("timm", "pretrained: FILE.safetensors"),
    "checkpoints": ("PaddleClas", "--resume RUN; for weights alone pretrained: FILE.safetensors"),
    "checkpoint": ("PyTorch", "--resume RUN; for weights alone pretrained: FILE.safetensors"),
    "resume": ("timm, YOLOv5", "--resume RUN (train(resume=RUN)), which takes no recipe"),
    "grad_checkpointing": ("timm", "recompute: [NAME, …]"),
    "gradient_checkpointing": ("Hugging Face", "recompute: [NAME, …]"),
    "freeze_layers": ("Keras", "freeze: [NAME, …]"),
    "trainable": ("Keras", "freeze: [NAME, …]"),
    "smoothing": ("timm", "loss.label_smoothing"),
    "label_smoothing": ("YOLOv5, Keras, torchvision", "loss.label_smoothing"),
    "criterion": ("PyTorch", "loss"),
    "model_ema": ("timm", "ema: DECAY"),
    "model_ema_decay": ("timm", "ema: DECAY"),
    "use_ema": ("Keras", "ema: DECAY"),
    "ema_decay": ("PaddleClas", "ema: DECAY"),
    "drop": ("timm", "Dropout's p in the model"),
    # run
    "epoch": ("Paddle", "epochs"),
    "num_epochs": ("PyTorch", "epochs"),
    "max_epochs": ("Lightning", "epochs"),
    "n_epochs": ("PyTorch", "epochs"),
    "total_epochs": ("mmcv", "epochs"),
    "steps_per_epoch": ("Keras", "follows from the data and batch_size"),
    "max_steps": ("Lightning", "epochs"),
    "eval_during_train": ("PaddleClas", "always on; eval_every says how often (in epochs)"),
    "eval_interval": ("PaddleClas", "eval_every"),
    "start_eval_epoch": ("PaddleClas", "eval_every"),
    "validation_freq": ("Keras", "eval_every"),
    "val_interval": ("timm", "eval_every"),
    "noval": ("YOLOv5", "always on; eval_every says how often (in epochs)"),
    "save_interval": ("PaddleClas", "save_every_epochs (and keep_snapshots: true to keep each)"),
    "save_period": ("YOLOv5", "save_every_epochs (and keep_snapshots: true to keep each)"),
    "print_batch_step": ("PaddleClas", "not needed: the bar shows each step; --quiet silences it"),
    "log_interval": ("timm", "not needed: the bar shows each step; --quiet silences it"),
    "verbose": ("Keras", "train(verbose=…), --quiet"),
    "output_dir": ("PaddleClas, torchvision", "--out DIR (train(out=DIR))"),
    "output": ("timm", "--out DIR (train(out=DIR))"),
    "save_dir": ("YOLOv5", "--out DIR (train(out=DIR))"),
    "project": ("YOLOv5", "--out DIR (train(out=DIR))"),
    "out": ("gapless", "--out DIR (train(out=DIR)), not part of the recipe"),
    "threads": ("gapless", "--threads N (train(threads=N)), not part of the recipe: it changes no number"),
    "device": ("PyTorch, YOLOv5", "not needed: gapless runs on the CPU; --threads N says on how much of it"),
    "use_gpu": ("PaddleClas", "not needed: gapless runs on the CPU; --threads N says on how much of it"),
    "gpus": ("Lightning", "not needed: gapless runs on the CPU; --threads N says on how much of it"),
    "amp": ("timm, PaddleClas", "precision"),
    "use_amp": ("PyTorch", "precision"),
    "dtype": ("Keras", "precision"),
    "metric": ("PaddleClas", "topk and monitor"),
    "metrics": ("Keras", "topk and monitor"),
    "eval_metric": ("timm", "monitor"),
    "save_best_only": ("Keras", "always done; monitor says by which number"),
    "patience": ("YOLOv5, Keras", "early_stopping (in evaluations); for the learning rate schedule.patience"),
    "patience_epochs": ("timm", "schedule.patience of ReduceOnPlateau"),
    "callbacks": ("Keras", "train(callbacks=[…]), not part of the recipe"),
    "random_state": ("scikit-learn", "seed"),
    "manual_seed": ("PyTorch", "seed"),
    "random_seed": ("Keras", "seed"),
    "deterministic": ("PyTorch", "not needed: always so"),
    "save_inference_dir": ("PaddleClas", "not needed: a checkpoint alone evaluates and predicts"),
    "eval_mode": ("PaddleClas", "not there: classification only"),
    "global": ("PaddleClas", "not needed: its keys stand at the top level (epochs, seed, eval_every, …)"),
    "train_loader": ("PyTorch", "data, train and batch_size"),
    "test_size": ("scikit-learn", "data.split"),
}  # fmt: skip

# names of things (optimizers, losses, schedules, augmentations) as peers write them -> what to write here
_NAMES: dict[str, tuple[str, str]] = {
    "Momentum": ("PaddleClas", "SGD, with momentum: 0.9"),
    "sgd": ("timm, Keras", "SGD"),
    "adam": ("Keras", "Adam"),
    "adamw": ("timm", "AdamW"),
    "rmsprop": ("timm", "RMSprop"),
    "CELoss": ("PaddleClas", "CrossEntropy"),
    "CrossEntropyLoss": ("PyTorch, Paddle", "CrossEntropy"),
    "LabelSmoothingCrossEntropy": ("timm", "CrossEntropy, with label_smoothing"),
    "SoftTargetCrossEntropy": ("timm", "CrossEntropy, which takes soft targets too"),
    "SparseCategoricalCrossentropy": ("Keras", "CrossEntropy"),
    "CategoricalCrossentropy": ("Keras", "CrossEntropy"),
    "CosineAnnealingLR": ("PyTorch", "Cosine"),
    "CosineAnnealingDecay": ("Paddle", "Cosine"),
    "CosineDecay": ("Keras", "Cosine"),
    "cosine": ("timm", "Cosine"),
    "StepLR": ("PyTorch", "Step"),
    "StepDecay": ("Paddle", "Step"),
    "MultiStepLR": ("PyTorch", "MultiStep"),
    "Piecewise": ("PaddleClas", "MultiStep, with milestones_epochs and gamma"),
    "PiecewiseConstantDecay": ("Keras", "MultiStep, with milestones and gamma"),
    "ExponentialLR": ("PyTorch", "Exponential"),
    "ExponentialDecay": ("Keras, Paddle", "Exponential"),
    "PolynomialLR": ("PyTorch", "Polynomial"),
    "PolynomialDecay": ("Keras, Paddle", "Polynomial"),
    "LinearLR": ("PyTorch", "Linear"),
    "OneCycleLR": ("PyTorch", "OneCycle"),
    "ReduceLROnPlateau": ("PyTorch, Keras", "ReduceOnPlateau"),
    "plateau": ("timm", "ReduceOnPlateau"),
    "LambdaLR": ("PyTorch", "Lambda"),
    "ResizeImage": ("PaddleClas", "Resize"),
    "Resizing": ("Keras", "Resize"),
    "CropImage": ("PaddleClas", "CenterCrop"),
    "RandCropImage": ("PaddleClas", "RandomResizedCrop"),
    "RandFlipImage": ("PaddleClas", "RandomHorizontalFlip"),
    "RandomFlip": ("Keras", "RandomHorizontalFlip"),
    "NormalizeImage": ("PaddleClas", "Normalize"),
    "Normalization": ("Keras", "Normalize"),
    "Rescaling": ("Keras", "Normalize (which divides by 255 first)"),
    "DecodeImage": ("PaddleClas", "not needed: pictures arrive decoded, RGB, upright"),
    "ToTensor": ("torchvision", "not needed: Normalize, the last op, does it"),
    "ToCHWImage": ("PaddleClas", "not needed: Normalize, the last op, does it"),
    "MixupOperator": ("PaddleClas", "not there yet"),
    "CutmixOperator": ("PaddleClas", "not there yet"),
}  # fmt: skip


def _plain(word: str) -> str:
    return "".join(c for c in word.lower() if c not in "_- ")


_PLAIN_KEYS = {_plain(key): (key, *value) for key, value in _KEYS.items()}
_PLAIN_NAMES = {_plain(key): value for key, value in _NAMES.items()}


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that `word` most likely means, or None.

    Examples
    --------
    >>> nearest("optimiser", ["optimizer", "model"])
    'optimizer'
    >>> nearest("hflip", ["data"]) is None
    True
    """
    by_plain = {_plain(k): k for k in known}
    close = difflib.get_close_matches(_plain(str(word)), by_plain, n=1, cutoff=0.6)
    return by_plain[close[0]] if close else None


def key_hint(key: str) -> str | None:
    """Return what a peer's key is called here, as the end of an error message; None if no peer has it.

    Examples
    --------
    >>> key_hint("learning_rate")
    'PaddleClas, Keras call it so; here it is called optimizer.lr'
    """
    for part in (key, key.rsplit(".", 1)[-1]):
        found = _PLAIN_KEYS.get(_plain(part))
        if found is not None:
            _, who, here = found
            verb = "call" if "," in who else "calls"
            if here.startswith(("not ", "always ", "the default", "follows")):
                return f"{who} {'have' if ',' in who else 'has'} it; here it is {here}"
            return f"{who} {verb} it so; here it is called {here}"
    return None


def name_hint(name: str) -> str | None:
    """Return what a thing that a peer names so is called here, as the end of an error message; None if
    unknown."""
    found = _PLAIN_NAMES.get(_plain(str(name)))
    if found is None:
        return None
    who, here = found
    if here.startswith("not "):
        return f"{who}'s; here it is {here}"
    return f"{who}'s; here it is called {here}"
