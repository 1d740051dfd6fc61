"""What names and shapes tell about two sides that do not match: the evidence behind ``plan.suggest()``.

In the order of the work: ``_tokens`` (what words mean), ``_templates`` (names without their indices, gathered
into modules), ``_relayouts`` (which shapes can become which), ``_evidence`` (what speaks for a pair),
``_pairing`` (which module feeds which, and how sure), ``_turns`` (square kernels), ``_drafts`` (rules that
read well), ``_fused`` (several modules in one), ``_suggestions`` (the result).
``_suggest`` and ``_diagnosis``, beside this folder, put them together.
"""
