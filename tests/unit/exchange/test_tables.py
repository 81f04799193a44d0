"""Tables of embeddings that files keep under another name."""

import numpy as np
import plain_folder
from reference import reference_cases as cases

from transformer.exchange.importing import import_hf
from transformer.inference.model_directory import load_model


def test_the_shared_table_may_have_a_copys_name(tmp_path):
    theirs = plain_folder.tensors()
    renamed = {name.replace("shared", "decoder.embed_tokens"): x for name, x in theirs.items()}
    assert renamed.keys() - theirs.keys() == {"model.decoder.embed_tokens.weight"}
    found = []
    for name, arrays in (("a", theirs), ("b", renamed)):
        import_hf(plain_folder.write(tmp_path / name, arrays), tmp_path / f"ours_{name}", note=str)
        found.append(cases.flatten(load_model(tmp_path / f"ours_{name}").params))
    assert found[0].keys() == found[1].keys()
    assert all(np.array_equal(x, found[1][path]) for path, x in found[0].items())
