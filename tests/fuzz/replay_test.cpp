// The fuzz targets of the file formats, replayed on the committed corpus and on damaged seeds in every test run.
#include "tests/fuzz/replay.h"
