"""The benchmark of planted faults: what the doctor says of faults whose size is known.

    python tests/planted                        every fault, image set and seed, and the clean runs
    python tests/planted --slice                the part that CI runs
    python tests/planted --only L1 --seeds 10   one fault on other seeds than the reported ones

Reading order: ``sets`` (the images), ``bed`` (an image set with its trained models), ``truth``; ``fault``,
``data_faults``, ``training_faults``, ``door_faults`` (what is planted, and what its size is), ``faults`` (all
of them, and pairs); ``bench`` (a case from planting to verdict), ``table`` (rows, totals, bounds).

A fault is planted in a copy of the data, in a recipe, or in what is evaluated. Its true size is measured by
counterfactual: the same thing once with the fault and once without it, in the measure that the check's row
states. Nothing here is known to the checks.
"""
