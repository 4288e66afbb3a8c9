"""Sines and cosines of whole turns in float32, compiled: a sixth of what torch's operations take.

Both share one range reduction, by whole turns, which is exact, and half of the angle, whose
polynomials are short. What is done with an entry stays in the processor's registers, where
torch would write and read a piece of memory for each of 17 operations.
"""

import numpy as np

from zoo.engines.compiling import kernel

# 2 sin(pi r) / r and cos(pi r) as polynomials in r^2, |r| <= 1/2: interpolated at the nodes of
# Chebyshev, off by 3e-8 and 5e-8 at most.
_S0, _S1 = np.float32(6.283185280154402), np.float32(-10.33542015333633)
_S2, _S3 = np.float32(5.100154773052372), np.float32(-1.1965808225334407)
_S4 = np.float32(0.15531182448662934)
_C0, _C1 = np.float32(0.9999999530275121), np.float32(-4.934792802489427)
_C2, _C3 = np.float32(4.058410790762133), np.float32(-1.3318729727851486)
_C4 = np.float32(0.21968242357146)
_ONE, _HALF = np.float32(1), np.float32(0.5)


@kernel
def fill(x, frequencies, sine, cosine):  # type: ignore[no-untyped-def]
    """Write sines and cosines `entry half` of 2 pi x B: x is `entry chan`, B `chan half`."""
    # A loop for each step, which becomes vector instructions.
    for entry in range(x.shape[0]):
        value = x[entry, 0]
        for wave in range(frequencies.shape[1]):
            sine[entry, wave] = value * frequencies[0, wave]
        for chan in range(1, x.shape[1]):
            value = x[entry, chan]
            for wave in range(frequencies.shape[1]):
                sine[entry, wave] += value * frequencies[chan, wave]
        for wave in range(frequencies.shape[1]):
            turns = sine[entry, wave]
            rest = turns - np.rint(turns)
            z = rest * rest
            twice = ((((_S4 * z + _S3) * z + _S2) * z + _S1) * z + _S0) * rest
            other = (((_C4 * z + _C3) * z + _C2) * z + _C1) * z + _C0
            sine[entry, wave] = twice * other
            cosine[entry, wave] = _ONE - _HALF * twice * twice
