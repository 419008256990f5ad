# One function per kind of target, so that a folder's CMakeLists.txt is a list of names.

include(GoogleTest)

# Headers that nearly every file reads, compiled once per kind of target: a clean build on two cores takes
# half the time. A file still includes what it uses.
file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/pch.cc "")
function(romulus_pch kind)
  add_library(romulus_pch_${kind} OBJECT ${CMAKE_BINARY_DIR}/pch.cc)
  cmake_parse_arguments(ARG "" "" "HEADERS;DEPS" ${ARGN})
  target_link_libraries(romulus_pch_${kind} PRIVATE romulus_flags ${ARG_DEPS})
  target_precompile_headers(romulus_pch_${kind} PRIVATE ${ARG_HEADERS})
endfunction()
set(common_headers <cstdint> <functional> <memory> <optional> <span> <string> <vector>
    <absl/status/statusor.h> <absl/strings/str_cat.h> <absl/synchronization/mutex.h>)
romulus_pch(lib HEADERS ${common_headers} DEPS absl::statusor absl::synchronization)
romulus_pch(test HEADERS ${common_headers} <gtest/gtest.h> <gmock/gmock.h>
            DEPS absl::statusor absl::synchronization GTest::gtest_main GTest::gmock)
romulus_pch(daemon HEADERS ${common_headers} <boost/asio.hpp> <google/protobuf/message.h>
            <grpcpp/grpcpp.h> DEPS absl::statusor absl::synchronization Boost::headers gRPC::grpc++
            protobuf::libprotobuf)
# What a test does is not worth optimizing; what it tests is.
target_compile_options(romulus_pch_test PRIVATE -O0)

# romulus_library(<folder> SOURCES a.cc ... DEPS romulus_x absl::y ...)
# A folder without sources (headers only) gets an INTERFACE target.
function(romulus_library folder)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  if(ARG_SOURCES)
    add_library(romulus_${folder} STATIC ${ARG_SOURCES})
    target_link_libraries(romulus_${folder} PUBLIC romulus_flags ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
    target_precompile_headers(romulus_${folder} REUSE_FROM romulus_pch_lib)
  else()
    add_library(romulus_${folder} INTERFACE)
    target_link_libraries(romulus_${folder} INTERFACE romulus_flags ${ARG_DEPS})
  endif()
endfunction()

# romulus_test(<name> LABEL unit|kvm|sim|e2e SOURCES a.cc ... DEPS romulus_x ...)
# Every TEST() becomes one ctest; labels say what a test may assume (tests/README.md).
function(romulus_test name)
  cmake_parse_arguments(ARG "" "LABEL;TIMEOUT" "SOURCES;DEPS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(ROMULUS_SANITIZER)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 5")
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE romulus_flags ${ARG_DEPS} GTest::gtest_main GTest::gmock)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_compile_options(${name} PRIVATE -O0)
  target_precompile_headers(${name} REUSE_FROM romulus_pch_test)
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60
    TEST_PREFIX "${ARG_LABEL}/"
    PROPERTIES LABELS "${ARG_LABEL}" TIMEOUT ${ARG_TIMEOUT})
endfunction()
