# Rate and pause of Romulus and COLO, each as often as it can; `table` and `picture` come from bench/run.
set terminal svg size 900,420 background "white"
set output picture
set multiplot layout 1,2
set style data histograms
set style fill solid 0.7
set logscale y
set grid ytics
set key top right
set xlabel "page writes per second"
set ylabel "checkpoints per second"
plot for [i=0:1] table index i using 2:xtic(1) title columnheader(1)
set ylabel "pause, milliseconds"
plot for [i=0:1] table index i using 3:xtic(1) title columnheader(1)." p50", \
     for [i=0:1] table index i using 4:xtic(1) title columnheader(1)." p99"
unset multiplot
