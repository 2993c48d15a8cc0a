from __future__ import annotations

import reader


def test_the_reader_stays_robust(robusteval_check):
    robusteval_check(reader.load(), suite="./shop.yaml", baseline="reader", cells=["a_id", "r_id"], sensitivity=0.05)
