# How much of its speed a guest keeps, by epochs per second; `table` and `picture` come from bench/run.
# Before the ranges, which it would count within.
stats table using 1 nooutput name "ALL"
set terminal svg size 600,420 background "white"
set output picture
set logscale x
set yrange [0:105]
set grid
set key bottom left
set xlabel "acked epochs per second"
set ylabel "progress, % of unprotected"
plot for [i=0:ALL_blocks-1] table index i using 1:2 with linespoints title columnheader(1)
