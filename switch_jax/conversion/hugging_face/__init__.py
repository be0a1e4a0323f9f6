"""Hugging Face's Switch Transformers, T5 and mT5: reading their folders, and writing them.

folder        a folder, opened and checked by its headers
model_config  config.json and our `ModelConfig`
tensor_names  the names of the tensors         tensor_files    the files that hold them
tokenizer     the tokenizer and VOCABULARY     tokenizer_json  tokenizer.json
export        writes a folder
"""

from switch_jax.conversion.hugging_face.folder import is_hugging_face, open_folder
