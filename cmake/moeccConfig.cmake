# find_package(moecc): the compiler as moecc::moecc, and moecc_add_network.
include(${CMAKE_CURRENT_LIST_DIR}/moeccTargets.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/moeccNetwork.cmake)
