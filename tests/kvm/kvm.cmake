romulus_test(kvm_fence_test LABEL kvm SOURCES ${CMAKE_CURRENT_LIST_DIR}/kvm_fence_test.cc
  DEPS romulus_kvm romulus_memory)
