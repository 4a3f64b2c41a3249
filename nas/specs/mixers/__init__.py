"""Specifications of the token mixers, one module for each kind of state that they keep.

Elements per layer and sequence, at context L; h heads, h_kv key/value heads, d_h, d_k, d_v
features of a head's query-and-keys and values, d_φ features of a feature map:

    full                 2·L·h_kv·d_h                     softmax.py
    sliding_window w, s  2·min(L, w + s)·h_kv·d_h         softmax.py   s sink tokens
    latent               L·(d_c + d_R)                    latent.py
    linear               h·d_φ·d_v + h·d_φ                linear.py    recurrent dtype
    retention            h·d_k·d_v                        linear.py
    gated_linear         h·d_k·d_v                        linear.py
    delta, gated_delta   h·d_k·d_v, and convolutions      delta.py
    mamba2               heads·P·N, and a convolution     state_space.py
    lstm, gru, rnn       2·H, H, H                        recurrent.py
    gated_conv           (k − 1)·d                        convolution.py, cache dtype

A convolution of kernel k over c channels keeps (k − 1)·c elements in the cache dtype.
"""
