"""Train cherry-nano-think from nothing: `python -m scripts.nano_think.train --out FOLDER --processes 1`.

The loop is cherry-nano's (`scripts.nano.train`); data, tokenizer and shape are this folder's.
"""

from scripts.nano.train import Recipe, main
from scripts.nano_think.data import PHASES
from scripts.nano_think.encoding import encoded_conversations
from scripts.nano_think.tokenizer import POSITIONS, train_tokenizer

RECIPE = Recipe(
    shape={"num_hidden_layers": 5, "max_position_embeddings": POSITIONS},
    tokenizer=train_tokenizer,
    phases=PHASES,
    conversations=encoded_conversations,
    row_tokens=384,
    rows_per_step=8,
)

if __name__ == "__main__":
    main(RECIPE, __doc__)
