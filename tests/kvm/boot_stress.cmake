# No ctest: tests/lab/boot_stress.py runs it inside a lab host.
add_executable(boot_stress ${CMAKE_CURRENT_LIST_DIR}/boot_stress.cc)
target_include_directories(boot_stress PRIVATE ${ROMULUS_CLI11_INCLUDE} ${PROJECT_SOURCE_DIR}/tests)
target_link_libraries(boot_stress PRIVATE romulus_flags romulus_vmm romulus_epoch romulus_replica
  romulus_codec romulus_test_support)
