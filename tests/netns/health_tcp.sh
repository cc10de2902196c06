# A TCP_CHECK takes a dead real server out and lets it back in, each within the
# time that its parameters allow; then no request fails.
# alone: it measures when checks change their verdict.
source "$(dirname "$0")/lib.sh"
make_network 3
start_nginx 1 2 3
check='TCP_CHECK = {}'
config
virtual_server $VIP:80 TCP rr 'delay_loop = 1' 'connect_timeout = 1' 'retry = 1' 'delay_before_retry = 0.5'
real_server 10.77.0.101:80 1 "$check"
real_server 10.77.0.102:80 1 "$check"
real_server 10.77.0.103:80 1 "$check"
# delay_loop + (retry + 1) × connect_timeout + retry × delay_before_retry, and two seconds on a busy machine
most=5500
start_director
wait_until 5 "all are up" eval 'server_is 1 up && server_is 2 up && server_is 3 up'

for way in process cable; do
    begin=$(now)
    case $way in
    process) stop_nginx 2 ;;
    cable) unplug rs2 ;;
    esac
    wait_until 4 "rs2 is out ($way)" server_is 2 down
    between "ms until it is out ($way)" $(($(now) - begin)) 0 $most
    contains "reason" "$(ask services '.[0].real_servers[1].reason')" .
    answers=$(names 60 http://$VIP/)
    equal "answers of rs1 and rs3" "$(served 'rs[13]' <<<"$answers")" 60
    begin=$(now)
    case $way in
    process) start_nginx 2 ;;
    cable) replug rs2 ;;
    esac
    wait_until 4 "rs2 is back ($way)" server_is 2 up
    between "ms until it is back ($way)" $(($(now) - begin)) 0 $most
    answers=$(names 60 http://$VIP/)
    equal "answers" "$(served 'rs[123]' <<<"$answers")" 60
    between "answers of rs2" "$(served rs2 <<<"$answers")" 18 22
done
