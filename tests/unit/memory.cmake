romulus_test(memory_test LABEL unit SOURCES ${CMAKE_CURRENT_LIST_DIR}/memory_test.cc DEPS romulus_memory)
