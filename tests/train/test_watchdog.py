from facescale.train.watchdog import diagnose

WELL = {"loss": 3.0, "target_cosine": 0.5, "spread": 0.1}


def test_a_healthy_run_gets_no_remark() -> None:
    assert diagnose(WELL, 1000, 0.5) is None


def test_collapsed_embeddings_are_named() -> None:
    remark = diagnose(WELL | {"spread": 0.97}, 1000, 0.1)
    assert remark is not None and "look collapsed (mean cosine 0.97" in remark


def test_a_run_that_does_not_learn_is_named_but_not_at_its_start() -> None:
    stuck = WELL | {"target_cosine": 0.01}
    assert diagnose(stuck, 1000, 0.05) is None
    remark = diagnose(stuck, 1000, 0.5)
    assert remark is not None and "loss 3.0, chance without margin is ln 1000 = 6.9" in remark
