// The fuzz targets of model files and configurations, replayed on the committed corpus and on damaged seeds in every test run.
#include "tests/fuzz/replay.h"
