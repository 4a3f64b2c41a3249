"""What operations whose way back is written by hand do to memory, one module for each of `nas.mixers` that has some.

In: a tape and shadows of an operation's inputs. Out: shadows of its outputs, with the way back recorded. The code
moves shadows as the operation moves tensors: the same steps in the same order, the same variables alive as long.
"""
