romulus_test(arch_test LABEL unit
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/arch_acpi_test.cc ${CMAKE_CURRENT_LIST_DIR}/arch_boot_test.cc
    ${CMAKE_CURRENT_LIST_DIR}/arch_cpuid_test.cc
  DEPS romulus_arch romulus_memory absl::strings)
romulus_test(arch_stock_kernel_test LABEL lab SOURCES ${CMAKE_CURRENT_LIST_DIR}/arch_stock_kernel_test.cc
  DEPS romulus_arch romulus_memory absl::strings)
