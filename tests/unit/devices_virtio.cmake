romulus_test(virtio_test LABEL unit
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/virtio_block_test.cc
    ${CMAKE_CURRENT_LIST_DIR}/virtio_queue_test.cc
    ${CMAKE_CURRENT_LIST_DIR}/virtio_mmio_test.cc
    ${CMAKE_CURRENT_LIST_DIR}/virtio_hostile_test.cc
    ${CMAKE_CURRENT_LIST_DIR}/virtio_net_test.cc
    ${CMAKE_CURRENT_LIST_DIR}/virtio_restore_test.cc
    ${CMAKE_CURRENT_LIST_DIR}/virtio_small_devices_test.cc
  DEPS romulus_devices romulus_state romulus_memory)
