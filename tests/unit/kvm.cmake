romulus_test(kvm_abi_test LABEL unit SOURCES ${CMAKE_CURRENT_LIST_DIR}/kvm_abi_test.cc
  DEPS romulus_kvm)
romulus_test(tracker_hot_pages_test LABEL unit SOURCES ${CMAKE_CURRENT_LIST_DIR}/tracker_hot_pages_test.cc
  DEPS romulus_tracker)
romulus_test(tracker_ring_source_test LABEL unit SOURCES ${CMAKE_CURRENT_LIST_DIR}/tracker_ring_source_test.cc
  DEPS romulus_tracker)
