# Each combination runs 300 epochs; on two busy cores the whole takes a few minutes.
romulus_test(oracle_test LABEL kvm TIMEOUT 600 SOURCES ${CMAKE_CURRENT_LIST_DIR}/oracle_test.cc
  DEPS romulus_vmm romulus_epoch romulus_replica romulus_codec romulus_test_support)
add_dependencies(oracle_test guest_ledger)
target_compile_definitions(oracle_test PRIVATE LEDGER_ELF="${CMAKE_BINARY_DIR}/guests/ledger.elf")
