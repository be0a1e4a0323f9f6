"""T5's preprocessing of text for pretraining.

`preprocessing`, the steps of a task as graphs; `span_masking`, T5's span corruption of many rows at
a time, with TensorFlow's random numbers (`stateless_random`, which loads no TensorFlow).
"""
