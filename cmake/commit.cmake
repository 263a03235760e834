# Run at every build: writes the commit that is being built ("1a2b3c4", "1a2b3c4+" where tracked files differ from it, "unknown" outside of git) into
# OUTPUT, touching it only when it changes. Measurements carry it.
execute_process(COMMAND git rev-parse --short HEAD WORKING_DIRECTORY ${SOURCE} OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed)
  set(commit unknown)
else()
  execute_process(COMMAND git diff-index --quiet HEAD -- kernels tensor layers infer train nifti tools benchmarks/segbench CMakeLists.txt WORKING_DIRECTORY ${SOURCE} RESULT_VARIABLE changed ERROR_QUIET)
  if(changed)
    string(APPEND commit "+")
  endif()
endif()
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "#define VG_COMMIT \"${commit}\"\n")
