# The protocol's bytes, written down. Deliberately changed: golden_test --write_golden.
romulus_test(golden_test LABEL unit SOURCES ${CMAKE_CURRENT_LIST_DIR}/golden_test.cc
             DEPS romulus_wire romulus_replica romulus_codec romulus_state romulus_proto)
target_compile_definitions(golden_test PRIVATE
  ROMULUS_GOLDEN_FOLDER="${CMAKE_CURRENT_LIST_DIR}/golden")
