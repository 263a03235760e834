# The programs of the hooks build: test_hooks, which plants mistakes and wants them reported, and test_kernels with a listener that fails each test in
# which anything was reported. (kernels/sim/README.md, "Every access observed")
target_compile_definitions(vg_sim PRIVATE VG_HOOKS)
set_source_files_properties(tensor/memory.cpp tests/kernels/harness.cpp PROPERTIES COMPILE_DEFINITIONS VG_HOOKS)

set_source_files_properties(tests/hooks/planted.cu PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++;${VG_HOOKS_OPTIONS}")
add_executable(test_hooks tests/hooks/planted.cu tests/hooks/planted_test.cpp tests/hooks/places.cpp)
target_link_libraries(test_hooks PRIVATE vg_tensor vg_sim vg_common GTest::gtest GTest::gtest_main)
target_compile_definitions(test_hooks PRIVATE VG_BIN_DIR="${CMAKE_BINARY_DIR}/bin" VG_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
gtest_discover_tests(test_hooks DISCOVERY_MODE PRE_TEST WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} PROPERTIES LABELS hooks)

function(vg_observe test)  # to be called when the program exists
  target_sources(${test} PRIVATE ${CMAKE_SOURCE_DIR}/tests/hooks/listener.cpp ${CMAKE_SOURCE_DIR}/tests/hooks/shapes_test.cpp
                         ${CMAKE_SOURCE_DIR}/tests/hooks/virtual_test.cpp
                         ${CMAKE_SOURCE_DIR}/tests/hooks/places.cpp ${CMAKE_SOURCE_DIR}/tests/hooks/seen.cpp)
endfunction()
cmake_language(DEFER CALL vg_observe test_kernels)

# What the kernels of a training step do to memory, for benchmarks/cards/cards.py.
add_executable(card_probe tests/hooks/card_probe.cpp tests/hooks/places.cpp tests/hooks/seen.cpp)
target_link_libraries(card_probe PRIVATE vg_tensor vg_sim vg_kernels vg_common GTest::gtest)
target_compile_definitions(card_probe PRIVATE VG_BIN_DIR="${CMAKE_BINARY_DIR}/bin" VG_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
