"""Reads and writes folders of Hugging Face's Switch Transformers, T5 and mT5.

folder        opens a folder, and checks it by its headers
model_config  translates config.json and our `ModelConfig`
tensor_names  the names of the tensors         tensor_files    the files that hold them
tokenizer     the tokenizer and VOCABULARY     tokenizer_json  tokenizer.json
export        writes a folder
"""

from switch_jax.conversion.hugging_face.folder import is_hugging_face, open_folder
