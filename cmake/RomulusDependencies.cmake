# Everything comes from Debian 12 packages (scripts/setup installs them); nothing is downloaded by CMake.

find_package(Threads REQUIRED)
find_package(absl REQUIRED)
find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(Boost 1.81 REQUIRED)
find_package(prometheus-cpp CONFIG REQUIRED)
find_package(spdlog CONFIG REQUIRED)
find_package(GTest CONFIG REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
find_path(ROMULUS_CLI11_INCLUDE CLI/CLI.hpp REQUIRED)
find_program(ROMULUS_GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)
