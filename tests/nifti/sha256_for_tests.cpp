// SHA-256 for reference_test.cpp: this program is linked with nifti/ and tensor/ alone, and the hash lives in layers/.
#include "layers/sha256.cpp"
