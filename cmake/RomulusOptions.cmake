# Compiler settings of every Romulus target: warnings are errors, sanitizers by preset, ccache where present.

set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1 -DNDEBUG")  # the sanitizer presets: quick to build

option(ROMULUS_BUILD_BENCH "Build bench/" ON)
option(ROMULUS_BUILD_FUZZERS "Build the libFuzzer targets (needs clang)" OFF)
set(ROMULUS_SANITIZER "" CACHE STRING "address, thread or empty")

find_program(ROMULUS_CCACHE ccache)
if(ROMULUS_CCACHE)
  # Paths below the source folder are hashed relative to it, so that another clone finds them; precompiled
  # headers need the sloppiness (ccache's manual, "Precompiled headers").
  set(ROMULUS_CCACHE_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR}
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      ${ROMULUS_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${ROMULUS_CCACHE_LAUNCHER})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${ROMULUS_CCACHE_LAUNCHER})
endif()

add_library(romulus_flags INTERFACE)
target_compile_options(romulus_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual
  -Wimplicit-fallthrough -Werror -pthread>)
target_include_directories(romulus_flags INTERFACE ${PROJECT_SOURCE_DIR}/lib)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 reports out-of-bounds copies inside std::string that are not there (GCC bug 105329 and kin);
  # from a precompiled header they are not even suppressed as a system header's.
  target_compile_options(romulus_flags INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess -Wno-array-bounds -Wno-stringop-overflow -Wno-restrict>)
endif()

if(ROMULUS_SANITIZER STREQUAL "address")
  # Not vptr: that check opens a pipe to see whether an object can be read, and takes it for a bad one when
  # there is no descriptor left, which tests bring about on purpose.
  set(ROMULUS_SANITIZE_FLAGS -fsanitize=address,undefined -fno-sanitize=vptr -fno-sanitize-recover=undefined
      -fno-omit-frame-pointer)
elseif(ROMULUS_SANITIZER STREQUAL "thread")
  # GCC warns that TSan does not see std::atomic_thread_fence; Romulus uses none.
  set(ROMULUS_SANITIZE_FLAGS -fsanitize=thread -fno-omit-frame-pointer -Wno-tsan)
  # Debian's absl::Mutex is invisible to TSan; this makes it visible in every executable.
  add_library(romulus_tsan STATIC ${PROJECT_SOURCE_DIR}/tests/support/tsan_absl_mutex.cc)
  target_link_libraries(romulus_tsan PUBLIC absl::synchronization ${CMAKE_DL_LIBS})
  target_link_libraries(romulus_flags INTERFACE romulus_tsan)
  target_link_options(romulus_flags INTERFACE -Wl,--undefined=_ZN4absl7debian35Mutex4LockEv)
elseif(NOT ROMULUS_SANITIZER STREQUAL "")
  message(FATAL_ERROR "ROMULUS_SANITIZER is '${ROMULUS_SANITIZER}': want address, thread or nothing")
endif()
if(ROMULUS_SANITIZE_FLAGS)
  target_compile_options(romulus_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:${ROMULUS_SANITIZE_FLAGS}>)
  target_link_options(romulus_flags INTERFACE ${ROMULUS_SANITIZE_FLAGS})
endif()

# libFuzzer is guided by the coverage of our own code, so all of it is instrumented.
if(ROMULUS_BUILD_FUZZERS)
  target_compile_options(romulus_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=fuzzer-no-link>)
  target_link_options(romulus_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
