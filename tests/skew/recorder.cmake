# Also built with the previous release's library, in its tree (record.py).
find_package(ZLIB REQUIRED)
add_executable(skew_recorder ${CMAKE_CURRENT_LIST_DIR}/recorder.cc)
target_link_libraries(skew_recorder PRIVATE romulus_flags romulus_wire romulus_replica romulus_proto_wire ZLIB::ZLIB)
target_include_directories(skew_recorder PRIVATE ${PROJECT_SOURCE_DIR}/tests)
