"""The vocabularies that have a name."""

import seqio

SENTINELS = 100
# T5's 32,000 pieces (section 3.1.3 of https://arxiv.org/abs/1910.10683) and its sentinels.
_T5_PIECES = "gs://t5-data/vocabs/cc_all.32000/sentencepiece.model"
T5 = seqio.SentencePieceVocabulary(_T5_PIECES, extra_ids=SENTINELS)
# As many as the 32,128 rows of T5's embedding hold. UL2 masks 127 spans in inputs of 512 tokens.
T5_MORE_SENTINELS = seqio.SentencePieceVocabulary(_T5_PIECES, extra_ids=128)
# mT5's 250,000 pieces (https://arxiv.org/abs/2010.11934); the file includes the sentinels.
MT5 = seqio.SentencePieceVocabulary("gs://t5-data/vocabs/mc4.250000.100extra/sentencepiece.model")
# Padding, EOS, unknown and the 256 bytes, as in ByT5 (https://arxiv.org/abs/2105.13626); then
# sentinels, for which ByT5 uses rare bytes.
BYTE = seqio.ByteVocabulary(extra_ids=SENTINELS)
